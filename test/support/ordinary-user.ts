import { execFileSync, type SpawnOptions, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Test } from 'tap';
import { packageRoot } from '../../src/addon/index.js';
import { temporaryFolder } from './bundle.js';
import { type Outcome, outcome } from './tsvmm.js';

export const UID = 54_321;
export const GID = 54_320;
/** Of the devices of virtualisation. */
const KVM_GID = 54_319;
/** The first of 65,536 ids that the user may have in namespaces of his. */
export const SUBID = 700_000;
const NAME = 'ordinary';

/** The host's only way out, which leads nowhere: what passt needs to have addresses. */
export const GATEWAY = '192.0.2.1';

/**
 * A network, a mount and a process namespace of the host in which there is an ordinary user, who is nobody outside, with a home, a
 * runtime folder, subordinate ids and (`groups`) the right to open /dev/kvm. tsvmm and node are where he can read them.
 */
const PLACE = `
set -e
read -r pid _ </proc/self/stat
mount -t proc proc /proc
ip link set lo up
ip link add out type dummy
ip addr add 192.0.2.2/24 dev out
ip link set out up
ip route add default via ${GATEWAY}
package=$1 node=$2 folder=$3
mkdir "$folder/etc" "$folder/dev" "$folder/opt"
mount --bind "$package" "$folder/opt" # before /opt is another, should the package lie there
touch "$folder/node"
mount --bind "$node" "$folder/node"
mount -t tmpfs -o mode=755 none /opt
mkdir /opt/tsvmm
touch /opt/node
mount --move "$folder/opt" /opt/tsvmm
mount --move "$folder/node" /opt/node
printf '#!/bin/sh\\nPATH=/opt:$PATH exec /opt/tsvmm/dist/tsvmm "$@"\\n' >/opt/runtime
chmod 755 /opt/runtime
for name in passwd group subuid subgid; do
  cat "/etc/$name" "$folder/$name" >"$folder/etc/$name" 2>/dev/null || cp "$folder/$name" "$folder/etc/$name"
  [ -e "/etc/$name" ] || touch "/etc/$name"
  mount --bind "$folder/etc/$name" "/etc/$name"
done
mount -t tmpfs -o dev,mode=755 none "$folder/dev"
mknod -m 660 "$folder/dev/kvm" c 10 232
chgrp ${KVM_GID} "$folder/dev/kvm"
mount --bind "$folder/dev/kvm" /dev/kvm
mknod -m 666 "$folder/dev/tun" c 10 200
mount --bind "$folder/dev/tun" /dev/net/tun
for place in /home /run; do mount -t tmpfs -o mode=755 none "$place"; done
for place in /home/${NAME} /run/user /run/user/${UID}; do mkdir "$place"; done
chown ${UID}:${GID} /home/${NAME} /run/user/${UID}
chmod 700 /home/${NAME} /run/user/${UID}
echo "$pid"
exec catatonit -- cat
`;

/** Serves one page on a port of the loopback, with a copy of itself in the background. */
const SERVER = `
import http.server, os, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(sys.argv[2].encode())
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Answer)
if os.fork() == 0:
    os.setsid()
    for fd in range(3):
        os.dup2(os.open('/dev/null', os.O_RDWR), fd)
    server.serve_forever()
`;

export interface UserOptions {
  readonly input?: string;
  /** Without: he may not open /dev/kvm. */
  readonly mayUseKvm?: boolean;
}

export class OrdinaryUser {
  readonly home = `/home/${NAME}`;

  private constructor(private readonly pid: number) {}

  static async open(t: Test): Promise<OrdinaryUser> {
    if (process.getuid?.() !== 0)
      throw new Error('to make an ordinary user, this test has to be run by root');
    const folder = temporaryFolder(t);
    writeFileSync(join(folder, 'passwd'), `${NAME}:x:${UID}:${GID}::/home/${NAME}:/bin/sh\n`);
    writeFileSync(join(folder, 'group'), `${NAME}:x:${GID}:\nvirtualisation:x:${KVM_GID}:${NAME}\n`);
    for (const name of ['subuid', 'subgid']) writeFileSync(join(folder, name), `${NAME}:${SUBID}:65536\n`);
    const holder = spawn(
      'unshare',
      [
        ...['--net', '--mount', '--pid', '--fork', '--kill-child', '--'],
        ...['sh', '-c', PLACE, 'place', packageRoot(), process.execPath, folder],
      ],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    t.teardown(async () => {
      holder.stdin?.end();
      if (holder.exitCode === null) await new Promise((resolve) => holder.on('exit', resolve));
    });
    const pid = await new Promise<number>((resolve, reject) => {
      createInterface({ input: holder.stdout }).on('line', (line) => resolve(Number(line)));
      holder.on('exit', () => reject(new Error('the namespaces of the ordinary user cannot be made')));
    });
    return new OrdinaryUser(pid);
  }

  /** Runs a command as the user, in his home, with the environment that he has after logging in. */
  run(command: readonly string[], { input = '', mayUseKvm = true }: UserOptions = {}): Promise<Outcome> {
    const environment = [
      ...[`HOME=${this.home}`, `USER=${NAME}`, `LOGNAME=${NAME}`, `XDG_RUNTIME_DIR=/run/user/${UID}`],
      ...['PATH=/usr/local/bin:/usr/bin:/bin', 'LANG=C.UTF-8'],
    ];
    const groups = mayUseKvm ? [GID, KVM_GID] : [GID];
    return this.#enter(
      [
        ...['setpriv', `--reuid=${UID}`, `--regid=${GID}`, `--groups=${groups.join(',')}`],
        ...['env', '-i', ...environment, 'sh', '-c', 'cd && exec "$@"', 'sh', ...command],
      ],
      input,
    );
  }

  tsvmm(args: readonly string[], options: UserOptions = {}): Promise<Outcome> {
    return this.run(['/opt/runtime', ...args], options);
  }

  /** Runs a shell command as root that has to succeed; returns its standard output without the last newline. */
  async root(script: string, input = ''): Promise<string> {
    const { status, stdout, stderr } = await this.#enter(['sh', '-c', script], input);
    if (status !== 0) throw new Error(`${script}: status ${status}\n${stderr}`);
    return stdout.replace(/\n$/, '');
  }

  /** Answers with that text on a port of the host's loopback, until the test ends. */
  async serve(port: number, text: string): Promise<void> {
    await this.root(`python3 - ${port} '${text}'`, SERVER);
  }

  /** Makes a file or folder of the host his, with all that is in it. */
  own(path: string): string {
    execFileSync('chown', ['-R', `${UID}:${GID}`, path]);
    return path;
  }

  /** Command lines of all his processes but these, in the order of their IDs. */
  async processes(): Promise<string[]> {
    const listed = await this.root(
      'cd /proc && for pid in [0-9]*; do echo "$(stat -c %u $pid) $(tr "\\0" " " <$pid/cmdline)"; done 2>/dev/null || true',
    );
    return listed
      .split('\n')
      .filter((line) => !line.startsWith('0 ') && line.trim() !== '')
      .map((line) => line.replace(/^\d+ /, ''));
  }

  #enter(command: readonly string[], input: string): Promise<Outcome> {
    const options: SpawnOptions = { stdio: 'pipe' };
    const child = spawn('nsenter', ['-t', String(this.pid), '-n', '-m', '-p', '--', ...command], options);
    child.stdin?.on('error', () => {}); // the command may end without reading it all
    child.stdin?.end(input);
    return outcome(child);
  }
}

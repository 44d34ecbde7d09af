// Sets up everything that the demo and the tests need. Each step is free when it has been done. Uses nothing
// but Node.js itself: it is what installs the rest.
//
//   node scripts/setup.mjs [PART...]      parts: npm addon guest testbed test conformance lint fuzz (default: all but the last three)
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { root, runMain, SetupError, testbedReason } from './lib/host.mjs';
import { exclusively, seconds, step } from './lib/steps.mjs';

/** The files that list the Debian packages of each part, one a line. */
const PACKAGES = {
  addon: 'native/packages.txt',
  guest: 'guest/packages.txt',
  testbed: 'testbed/packages.txt',
  test: 'test/packages.txt',
  conformance: 'test/conformance/packages.txt',
  lint: '.ci/packages.txt',
  fuzz: 'fuzz/packages.txt',
};

export async function setUp(parts) {
  const start = Date.now();
  const wanted = new Set(parts);
  if (wanted.has('addon')) wanted.add('npm');
  await exclusively(async () => {
    await debianPackages(wanted);
    if (wanted.has('npm') && !nodeModulesAreRight()) {
      await step('npm', 'npm packages', [['npm', 'ci', '--ignore-scripts', '--no-audit', '--no-fund']]);
    }
    if (wanted.has('addon')) {
      await step('addon', 'native addon and bundles', [[process.execPath, 'scripts/build.mjs']]);
    }
    if (wanted.has('guest')) {
      await step('guest', 'guest kernel and initramfs', [['bash', 'guest/build.sh']]);
    }
    if (wanted.has('testbed')) {
      await step('testbed', 'testbed', [[join(root, 'testbed/testbed'), '--prepare']]);
    }
  });
  console.log(`set-up: complete in ${seconds(Date.now() - start)}`);
}

async function debianPackages(parts) {
  const names = [...parts]
    .map((part) => PACKAGES[part])
    .filter((file) => file !== undefined && existsSync(join(root, file)))
    .flatMap((file) => readFileSync(join(root, file), 'utf8').split('\n'))
    .map((line) => line.replace(/#.*/, '').trim())
    .filter((line) => line !== '');
  const missing = missingPackages([...new Set(names)].sort());
  if (missing.length === 0) return;
  const command = `apt-get install --no-install-recommends ${missing.join(' ')}`;
  if (spawnSync('apt-get', ['--version']).error) {
    throw new SetupError(
      `these Debian packages are missing, and there is no apt-get here: ${missing.join(' ')}`,
    );
  }
  if (process.getuid() !== 0) {
    throw new SetupError(
      `${missing.length} Debian packages are missing, and only root can install them; remedy:\n  sudo apt-get update && sudo ${command}`,
    );
  }
  const title = `${missing.length} Debian packages`;
  await step(
    'debian',
    title,
    [
      ['apt-get', 'update', '-q'],
      [
        'apt-get',
        'install',
        '-y',
        '-q',
        '--no-install-recommends',
        '-o',
        'DPkg::Lock::Timeout=900',
        ...missing,
      ],
    ],
    {
      env: { DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' },
      retry: heldByAnother(),
    },
  );
}

/** True, for up to 15 minutes, where a command failed because another process held one of apt's locks. */
function heldByAnother() {
  const end = Date.now() + 15 * 60_000;
  return (output) =>
    /Could not get lock|is another process using it/.test(output.slice(-2000)) && Date.now() < end;
}

function missingPackages(names) {
  if (names.length === 0) return [];
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg's own syntax
  const format = '${Package} ${db:Status-Status}\n';
  const query = spawnSync('dpkg-query', ['-W', '-f', format, ...names], { encoding: 'utf8' });
  if (query.error) {
    console.log(`  no dpkg here: make sure yourself of what Debian calls ${names.join(' ')}`);
    return [];
  }
  const installed = new Set(
    query.stdout.split('\n').flatMap((line) => (line.endsWith(' installed') ? [line.split(' ')[0]] : [])),
  );
  return names.filter((name) => !installed.has(name));
}

/** True where node_modules holds exactly what package-lock.json says, as npm itself noted it down. */
function nodeModulesAreRight() {
  let noted;
  try {
    noted = JSON.parse(readFileSync(join(root, 'node_modules/.package-lock.json'), 'utf8')).packages;
  } catch {
    return false;
  }
  const locked = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;
  const same = (a, b) => a.version === b.version && a.integrity === b.integrity;
  for (const [path, entry] of Object.entries(locked)) {
    if (path === '') continue;
    const there = noted[path];
    if (there === undefined ? !(entry.optional || entry.devOptional) : !same(entry, there)) return false;
    if (there !== undefined && !existsSync(join(root, path, 'package.json'))) return false;
  }
  return Object.keys(noted).every((path) => locked[path] !== undefined);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await runMain('setup', async () => {
    const parts = process.argv.slice(2);
    const known = ['npm', ...Object.keys(PACKAGES)];
    const unknown = parts.filter((part) => !known.includes(part));
    if (unknown.length > 0)
      throw new SetupError(`no part ${unknown.join(', ')}: there are ${known.join(' ')}`);
    const usual = () => ['addon', 'guest', 'test', ...(testbedReason() === undefined ? [] : ['testbed'])];
    await setUp(parts.length > 0 ? parts : usual());
    return 0;
  });
}

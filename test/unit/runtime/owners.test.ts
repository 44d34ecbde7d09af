import t from 'tap';
import { guestConfig } from '../../../src/runtime/guest-config.js';
import { ownersOf } from '../../../src/runtime/owners.js';
import type { LinuxSection, Spec } from '../../../src/runtime/spec/types.js';
import { sampleSpec } from '../../support/spec.js';

const ME = { uid: 1000, gid: 100 };

function specWith(linux: LinuxSection, user?: Spec['process']['user']): Spec {
  const spec = sampleSpec();
  spec.linux = linux;
  if (user === undefined) delete spec.process.user;
  else spec.process.user = user;
  return spec;
}

const one = (hostID: number, containerID = 0, size = 1) => ({ containerID, hostID, size });

t.test("root's files belong to whom the guest says, and maps are the guest's", async (t) => {
  const spec = specWith({ namespaces: [{ type: 'user' }], uidMappings: [one(100_000)] });
  const warnings: string[] = [];
  const { idMap, linux } = ownersOf(spec, { uid: 0, gid: 0 }, warnings);
  t.equal(idMap, undefined);
  t.same(linux, spec.linux);
  t.same(warnings, []);
});

t.test("an ordinary user is the guest's root where the bundle says nothing", async (t) => {
  const mine = { uids: [{ guest: 0, host: 1000, count: 1 }], gids: [{ guest: 0, host: 100, count: 1 }] };
  const warnings: string[] = [];
  t.same(ownersOf(specWith({ namespaces: [{ type: 'pid' }] }), ME, warnings).idMap, mine);
  // As `crun spec --rootless` has it.
  const { idMap, linux } = ownersOf(
    specWith({ namespaces: [{ type: 'pid' }, { type: 'user' }] }),
    ME,
    warnings,
  );
  t.same(idMap, mine);
  t.same(linux, { namespaces: [{ type: 'pid' }] }, 'mapped once');
  t.same(warnings, []);
  const other = specWith({}, { uid: 33, gid: 33 });
  t.same(ownersOf(other, ME, warnings).idMap, mine);
  t.same(warnings, [
    'process.user.uid: 33 is nobody on this host: the process cannot make files on it',
    'process.user.gid: 33 is nobody on this host: the process cannot make files on it',
  ]);
});

t.test("the bundle's maps become those of the shares", async (t) => {
  const spec = specWith(
    {
      namespaces: [{ type: 'user' }, { type: 'mount' }],
      uidMappings: [one(1000, 5)],
      gidMappings: [one(100, 6)],
      sysctl: { 'kernel.domainname': 'x' },
    },
    { uid: 5, gid: 6 },
  );
  const guest = guestConfig(spec, 'demo', '/', ME);
  t.same(guest.idMap, {
    uids: [{ guest: 5, host: 1000, count: 1 }],
    gids: [{ guest: 6, host: 100, count: 1 }],
  });
  t.same(guest.spec.linux, {
    namespaces: [{ type: 'mount' }],
    sysctl: { 'kernel.domainname': 'x' },
    cgroupsPath: '/demo',
  });
  t.same(guest.warnings, []);
});

t.test('ids that are not his own are told, and such that he cannot have refused', async (t) => {
  const users = (uidMappings: LinuxSection['uidMappings']) => specWith({ uidMappings: uidMappings ?? [] });
  const warnings: string[] = [];
  const map = [one(1000), one(100_000, 1, 65_536)];
  t.same(ownersOf(users(map), ME, warnings).idMap?.uids, [
    { guest: 0, host: 1000, count: 1 },
    { guest: 1, host: 100_000, count: 65_536 },
  ]);
  t.match(warnings[0], /^linux\.uidMappings: files can be made as 1000 only; .*unshare/);
  const cases: [Spec, RegExp][] = [
    [users([one(0)]), /linux\.uidMappings: maps nothing to user 1000, who runs tsvmm/],
    [specWith({ gidMappings: [one(1000)] }), /linux\.gidMappings: maps nothing to group 100, who runs tsvmm/],
    [users([one(1000, 0, 0)]), /linux\.uidMappings\[0\]: 0 ids from 0 \(host: 1000\) on: there are no such/],
    [users([one(1000), one(0xffffffff, 1)]), /linux\.uidMappings\[1\]: 1 ids from 1 \(host: 4294967295\)/],
    [
      specWith({ uidMappings: [one(1000)] }, { uid: 1, gid: 0 }),
      /process\.user\.uid: 1 is not in linux\.uidMappings/,
    ],
  ];
  for (const [spec, message] of cases) t.throws(() => ownersOf(spec, ME, []), { message });
});

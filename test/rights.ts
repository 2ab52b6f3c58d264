/** Who may do what: every operation and every call, as everyone there is, with credentials of real processes. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { calls } from '../src/control/calls.js';
import { groupOf } from '../src/control/groups.js';
import { operations } from '../src/control/operations.js';
import { type Right, rights } from '../src/control/rights.js';
import { ControlServer } from '../src/control/server.js';
import type { OverlayView, StatsView } from '../src/control/view.js';
import { discreetText } from '../src/fma.js';
import { silent } from '../src/log.js';
import { temporaryDirectory } from './harness/control-rig.js';
import { assertRefused, MemoryOverlay } from './harness/memory-overlay.js';
import { testWith } from './harness/needs.js';
import { type Asked, askAs, type Identity, type Told } from './harness/rights-client.js';
import type { RightsServerOptions } from './harness/rights-server.js';

const suited = suite('rights');
const SERVER = join(import.meta.dirname, 'harness/rights-server.js');
const CLI = join(import.meta.dirname, '../src/cli/main.js');
const OWNER = 64_001;
const READERS = 64_104;
const ADMINS = 64_103;
const access = { group: READERS, adminGroup: ADMINS };
/** More than the daemon asks the kernel for at first. */
const manyGroups = Array.from({ length: 200 }, (_, index) => 65_000 + index);

interface Party extends Identity {
  readonly who: string;
  readonly has: Right;
}

const parties: readonly Party[] = [
  { who: 'root', uid: 0, gid: 0, groups: [0], has: 'write' },
  { who: 'root, in no group', uid: 0, gid: 64_009, groups: [], has: 'write' },
  { who: "the daemon's own user", uid: OWNER, gid: 64_009, groups: [], has: 'write' },
  { who: 'an admin by a supplementary group', uid: 64_003, gid: 64_003, groups: [ADMINS], has: 'write' },
  {
    who: 'an admin by the last of many groups',
    uid: 64_003,
    gid: 64_003,
    groups: [...manyGroups, 65_200, ADMINS],
    has: 'write',
  },
  { who: 'an admin by the primary group', uid: 64_003, gid: ADMINS, groups: [], has: 'write' },
  { who: 'a member by a supplementary group', uid: 64_004, gid: 64_004, groups: [READERS], has: 'read' },
  { who: 'a member by the primary group', uid: 64_005, gid: READERS, groups: [], has: 'read' },
  { who: "a user in the daemon's group and others", uid: 64_006, gid: OWNER, groups: [64_999], has: 'look' },
];

/** All that can be asked, for things that are not there: whoever may ask is told so, or that the request is incomplete. */
const asked: readonly (Asked & { readonly name: string; readonly needs: Right })[] = [
  ...operations.map(({ name, method, path, needs }) => ({
    name,
    needs,
    method,
    path: path.replace(':name', 'nope').replace(':property', 'mtu').replace(':mac', '2:8:20:1:2:3'),
    ...(method === 'GET' || method === 'DELETE' ? {} : { body: {} }),
  })),
  ...calls.map(({ name, needs }) => ({
    name: `handle/${name}`,
    needs,
    method: 'POST',
    path: `/v1/handle/${name}`,
    body: name === 'lookup' ? { wait_ms: 0 } : {},
    isCall: true,
  })),
];

const has = (right: Right, needed: Right) => rights.indexOf(right) >= rights.indexOf(needed);

/** Runs a server as another user. */
async function withServer(
  options: RightsServerOptions['access'],
  work: (socket: string) => Promise<void>,
): Promise<void> {
  const directory = temporaryDirectory();
  chownSync(directory, OWNER, OWNER);
  const socket = join(directory, 'socket');
  const settings: RightsServerOptions = {
    uid: OWNER,
    gid: OWNER,
    groups: [READERS, ADMINS],
    access: options,
  };
  const child = spawn(process.execPath, [SERVER, socket, JSON.stringify(settings)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const exited = once(child, 'exit');
  try {
    await once(child.stdout, 'data');
    await work(socket);
  } finally {
    child.stdin.end();
    const [code] = await exited;
    rmSync(directory, { recursive: true, force: true });
    assert.is(code, 0, 'the server ends well');
  }
}

suited('every operation and every call states a right that there is, and what changes needs write', () => {
  for (const { name, needs } of asked) assert.ok(rights.includes(needs), `${name} needs '${needs}'`);
  for (const { name, method, needs } of operations) {
    assert.is(needs === 'write', method !== 'GET', `${name}: ${method} and ${needs}`);
  }
  for (const { name, needs, needsWriteHandle } of calls) {
    if (needsWriteHandle) assert.is(needs, 'write', name);
  }
  const looks = asked.filter(({ needs }) => needs === 'look').map(({ name }) => name);
  assert.equal(
    looks,
    ['list', 'show', 'status', 'stats', 'daemon-status', 'events', 'handle/list'],
    'what everyone may: think twice before this list grows',
  );
});

for (const party of parties) {
  testWith(suited, ['root'], `${asked.length} operations and calls as ${party.who}: ${party.has}`, () =>
    withServer(access, async (socket) => {
      const { answers, writer } = await askAs(socket, party, asked);
      assert.is(answers.length, asked.length);
      for (const [index, { name, needs, isCall }] of asked.entries()) {
        const answer = answers[index]!;
        const isMine = has(party.has, needs);
        const call = isCall ? calls.find((each) => `handle/${each.name}` === name)! : undefined;
        if (isMine) {
          assert.not.ok(
            ['not_permitted', 'handle_read_only', 'internal', 'no_such_operation'].includes(answer.code),
            name,
          );
          assert.ok(
            (answer.status > 0 && answer.status < 500) || answer.code === 'no_request',
            `${name}: ${answer.text}`,
          );
        } else if (call?.needsWriteHandle) {
          // He could not open one.
          assert.equal([answer.status, answer.errno, answer.code], [403, 'EBADF', 'handle_read_only'], name);
        } else {
          assertRefusal(answer, party.uid, needs, name);
        }
      }
      assert.is(writer!.status === 200, has(party.has, 'write'));
      if (writer!.status !== 200) assertRefusal(writer!, party.uid, 'write', 'opening a handle');
    }),
  );
}

function assertRefusal(
  { status, errno, code, message }: Told,
  uid: number,
  right: Right,
  what: string,
): void {
  assert.equal([status, errno, code], [403, 'EPERM', 'not_permitted'], what);
  const groups = right === 'read' ? `'${ADMINS}' or '${READERS}'` : `'${ADMINS}'`;
  assert.ok(message.startsWith(`user ${uid} may look`), message);
  assert.ok(message.includes(`the right '${right}' is missing`), message);
  assert.ok(message.includes(`run this as root, or as a member of group ${groups}`), message);
}

const stranger = parties.at(-1)!;
const member = parties.find(({ has }) => has === 'read')!;

testWith(
  suited,
  ['root'],
  'who may not read sees names, states and faults, and no value, target or address',
  () =>
    withServer(access, async (socket) => {
      const lists: Asked[] = [
        '/v1/overlays',
        '/v1/overlays/ov0',
        '/v1/stats',
        '/v1/status',
        '/v1/events',
      ].map((path) => ({
        method: 'GET',
        path,
      }));
      const secrets = /127\.0\.0\.|4789|"value":(?!null)/;
      const seen = (await askAs(socket, stranger, lists)).answers;
      for (const { status, text } of seen) {
        assert.is(status, 200, text);
        // The ports that may be are everyone's to know.
        assert.not.match(text.replaceAll(/"(default|possible)":[^,}]*/g, ''), secrets);
      }
      const { ov0 } = (JSON.parse(seen[0]!.text) as { overlays: Record<string, OverlayView> }).overlays;
      assert.equal(
        [ov0!.redacted, ov0!.state, ov0!.status, ov0!.message, ov0!.targets, ov0!.requests],
        [true, 'started', 'DEGRADED', discreetText('plugin'), [], null],
      );
      assert.ok(ov0!.properties.length >= 10 && ov0!.properties.every(({ value }) => value === null));
      assert.equal((JSON.parse(seen[2]!.text) as StatsView).muxes, {});
      const read = (await askAs(socket, member, lists)).answers;
      const whole = (JSON.parse(read[0]!.text) as { overlays: Record<string, OverlayView> }).overlays.ov0!;
      assert.is(whole.redacted, undefined);
      assert.is(whole.message, 'it rains on 127.0.0.2');
      for (const index of [3, 4]) assert.match(read[index]!.text, /it rains on 127\.0\.0\.2/);
      assert.is(whole.targets.length, 1);
      assert.equal(Object.keys((JSON.parse(read[2]!.text) as StatsView).muxes), ['127.0.0.1:4789']);
    }),
);

testWith(suited, ['root'], 'show-overlay of who may not read: -- for what he may not see', () =>
  withServer(access, async (socket) => {
    const run = (...args: string[]) => {
      const { uid, gid } = stranger;
      const { status, stdout, stderr } = spawnSync(process.execPath, [CLI, '-S', socket, ...args], {
        uid,
        gid,
        cwd: '/',
        encoding: 'utf8',
      });
      return { status, stdout, stderr };
    };
    const shown = run('show-overlay', '-p', '-o', 'link,property,value');
    assert.equal([shown.status, shown.stderr], [0, '']);
    const lines = shown.stdout.trimEnd().split('\n');
    assert.ok(lines.includes('ov0:vxlan/listen_ip:--'));
    assert.ok(
      lines.every((line) => line.endsWith(':--')),
      shown.stdout,
    );
    assert.equal(run('show-overlay', '-f', '-p', '-o', 'all'), {
      status: 0,
      stdout: `ov0:DEGRADED:${discreetText('plugin').replaceAll(':', '\\:')}\n`,
      stderr: '',
    });
    const targets = run('show-overlay', '-t', '-p', '-o', 'all');
    assert.equal(targets, { status: 0, stdout: `ov0:${Array(10).fill('--').join(':')}\n`, stderr: '' });
    const document = JSON.parse(run('show-overlay', '-t', '--json').stdout) as {
      overlays: Record<string, OverlayView>;
    };
    assert.equal([document.overlays.ov0!.redacted, document.overlays.ov0!.targets], [true, []]);
    const refused = run('delete-overlay', 'ov0');
    assert.is(refused.status, 5);
    assert.match(refused.stderr, /may look but not change \(the right 'write' is missing\)/);
    assert.is(run('status').status, 0);
    assert.is(run('events').status, 0);
  }),
);

testWith(suited, ['root'], 'without groups nobody but root and the own user may read', () =>
  withServer({}, async (socket) => {
    const [answer] = (await askAs(socket, member, [{ method: 'GET', path: '/v1/overlays/ov0/targets' }]))
      .answers;
    assert.is(answer!.code, 'not_permitted');
    assert.match(answer!.message, /start overlayd with --group and a group you are in/);
  }),
);

testWith(suited, ['root'], 'mode 0660: members of the group connect, others do not get that far', () =>
  withServer({ ...access, socketMode: 0o660 }, async (socket) => {
    const { mode, gid } = statSync(socket);
    assert.equal([mode & 0o777, gid], [0o660, READERS]);
    const one: Asked[] = [{ method: 'GET', path: '/v1/overlays' }];
    assert.is((await askAs(socket, member, one)).answers[0]!.status, 200);
    assert.equal(
      (await askAs(socket, stranger, one)).answers.map(({ text }) => text),
      ['EACCES'],
    );
  }),
);

testWith(
  suited,
  ['root'],
  'access is changed while the server runs; what is refused changes nothing',
  async () => {
    const memory = await MemoryOverlay.start();
    const directory = temporaryDirectory();
    const socket = join(directory, 'socket');
    const server = await ControlServer.start(memory.overlay, socket, silent);
    try {
      const reads: Asked[] = [{ method: 'GET', path: '/v1/overlays/nope/targets' }];
      const code = async () => (await askAs(socket, member, reads)).answers[0]!.code;
      assert.is(await code(), 'not_permitted');
      server.setAccess({ group: READERS });
      assert.is(await code(), 'no_such_device');
      await assertRefused(
        () => server.setAccess({ group: 'no-such-group-here' }),
        'ENOENT',
        'no_such_group',
        /groupadd/,
      );
      await assertRefused(() => server.setAccess({ adminGroup: 2 ** 32 - 1 }), 'EINVAL', 'bad_group');
      assert.is(await code(), 'no_such_device');
      rmSync(socket);
      await assertRefused(() => server.setAccess({}), 'ENOENT', 'socket_access');
    } finally {
      await server.close();
      await memory.close();
      rmSync(directory, { recursive: true, force: true });
    }
    const late = join(temporaryDirectory(), 'socket');
    const other = await MemoryOverlay.start();
    await assertRefused(
      ControlServer.start(other.overlay, late, silent, { group: 'no-such-group-here' }),
      'ENOENT',
      'no_such_group',
    );
    await other.close();
  },
);

suited('groups: by name, by number, and neither', async () => {
  const { gid, name } = groupOf('root');
  assert.equal([gid, name], [0, 'root']);
  assert.equal(groupOf(0), { gid: 0, name: 'root' }, 'a number is shown as its name');
  assert.equal(groupOf('4000000000'), { gid: 4_000_000_000, name: '4000000000' });
  for (const bad of [-1, 1.5, Number.NaN, 2 ** 32, '99999999999']) {
    await assertRefused(() => groupOf(bad), 'EINVAL', 'bad_group');
  }
  for (const bad of ['', 'root:', '-1', '1e3', '*', 'root\nx', '__proto__']) {
    await assertRefused(() => groupOf(bad), 'ENOENT', 'no_such_group');
  }
});

suited.run();

/** The store of devices on a disk that does its part: what is written comes back, what was damaged does not. */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ASIDE_MAX } from '../src/state/aside.js';
import { DEVICE_FILE_BYTES_MAX, DEVICE_VERSION, seal } from '../src/state/device-file.js';
import type { DeviceRecord, TargetRecord } from '../src/state/record.js';
import { StateStore } from '../src/state/store.js';
import { ENTRIES_MAX, headLine } from '../src/state/target-lines.js';
import { assertRefused } from './harness/memory-overlay.js';
import { recordOf, targetsOf } from './harness/state-child.js';

const state = suite('state');

/** Runs `work` with a directory of its own. */
async function inDirectory(work: (directory: string) => void | Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'overlayd-state-'));
  try {
    await work(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const fileOf = (directory: string, name = 'ov0') => join(directory, 'devices', `${name}.json`);
const targetsFileOf = (directory: string, name = 'ov0') => join(directory, 'targets', name);
const devicesIn = (directory: string) => readdirSync(join(directory, 'devices')).sort();
const targetsIn = (directory: string) => readdirSync(join(directory, 'targets')).sort();
const asidesIn = (directory: string) => devicesIn(directory).filter((file) => file.includes('.bad-'));
const json = (value: unknown) => JSON.parse(JSON.stringify(value)) as unknown;

async function loadAll(store: StateStore, name = 'ov0'): Promise<TargetRecord[]> {
  const rows: TargetRecord[] = [];
  for await (const some of store.loadTargets(name)) for (const row of some) rows.push(row);
  return rows;
}

const text = fc.string({ minLength: 1, maxLength: 30, unit: 'binary' });
const records: fc.Arbitrary<DeviceRecord> = fc.record({
  name: fc.stringMatching(/^[A-Za-z][A-Za-z0-9_.-]{0,14}$/),
  id: fc.integer({ min: 1 }),
  encap: text,
  search: text,
  vnetid: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(String),
  properties: fc.dictionary(text, fc.oneof(text, fc.maxSafeInteger(), fc.constant('18446744073709551615'))),
  isActivated: fc.boolean(),
  mac: fc.constantFrom(null, '02:08:20:01:02:03', 'ff:ff:ff:ff:ff:ff'),
  association: fc.oneof(
    fc.constantFrom(null, { mode: 'dynamic' }),
    fc.ipV4().map((ip) => ({ mode: 'point', destination: { ip, port: 9 } })),
  ),
  saved: fc.oneof(fc.constant(null), fc.jsonValue()),
});

state('300 random sets of records: each comes back as it was, in the order of the ids', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(records, { selector: ({ name }) => name, maxLength: 6 }),
      async (given) => {
        await inDirectory((directory) => {
          const store = StateStore.open(directory);
          for (const record of given) {
            store.save({ ...record, saved: 'the one before' });
            store.save(record);
          }
          const { devices, problems } = StateStore.open(directory).load();
          assert.equal(problems, []);
          const byName = (one: DeviceRecord, other: DeviceRecord) => (one.name < other.name ? -1 : 1);
          assert.equal([...devices].sort(byName), [...given].sort(byName).map(json));
          assert.equal(
            devices.map(({ id }) => id),
            given.map(({ id }) => id).sort((one, other) => one - other),
          );
          for (const { name } of given) store.remove(name);
          assert.equal(devicesIn(directory), []);
        });
      },
    ),
    { numRuns: 300 },
  );
});

state('files are for their user alone, and for people to read', async () => {
  await inDirectory(async (directory) => {
    mkdirSync(join(directory, 'devices'));
    chmodSync(join(directory, 'devices'), 0o777);
    const store = StateStore.open(directory);
    store.save(recordOf(1));
    await store.saveTargets('ov0', targetsOf(1));
    const mode = (path: string) => statSync(path).mode & 0o777;
    assert.equal([fileOf(directory), targetsFileOf(directory)].map(mode), [0o600, 0o600]);
    assert.equal(
      ['devices', 'targets'].map((folder) => mode(join(directory, folder))),
      [0o700, 0o700],
    );
    const shown = JSON.parse(readFileSync(fileOf(directory), 'utf8')) as Record<string, unknown>;
    assert.is(shown.version, DEVICE_VERSION);
    assert.equal(shown.device, recordOf(1));
    assert.match(readFileSync(fileOf(directory), 'utf8'), /\n {4}"vnetid": "1",\n/);
    assert.match(
      readFileSync(targetsFileOf(directory), 'utf8'),
      /^overlayd targets 1\n\{"route":.*\n020000000000 0\n/,
    );
  });
});

/** Damages the file of ov0 in one way after the other: each time it is set aside, named, and ov1 loads. */
async function damage(ways: (bytes: Buffer) => Iterable<readonly [Buffer, RegExp]>): Promise<number> {
  let count = 0;
  await inDirectory((directory) => {
    const store = StateStore.open(directory);
    store.save({ ...recordOf(1), saved: 'é' });
    store.save(recordOf(2, 'ov1'));
    for (const [bytes, reason] of ways(readFileSync(fileOf(directory)))) {
      writeFileSync(fileOf(directory), bytes);
      const { devices, problems } = store.load();
      assert.equal(devices, [recordOf(2, 'ov1')], `way ${count}`);
      assert.is(problems.length, 1);
      const { file, name, code, reason: said } = problems[0]!;
      assert.equal([file, name, code], [fileOf(directory), 'ov0', 'state_bad']);
      assert.match(said, reason);
      const asides = asidesIn(directory);
      assert.ok(asides.length >= 1 && asides.length <= ASIDE_MAX);
      assert.match(said, asides.at(-1)!);
      assert.equal(readFileSync(join(directory, 'devices', asides.at(-1)!)), bytes, 'it is kept as it was');
      assert.is(existsSync(fileOf(directory)), false);
      count++;
    }
  });
  return count;
}

state('every byte changed: never a wrong record', async () => {
  const count = await damage(function* (bytes) {
    for (let at = 0; at < bytes.length; at++) {
      for (const by of [0x01, 0x20]) {
        const changed = Buffer.from(bytes);
        changed[at]! ^= by;
        yield [changed, /is not used: (?:its checksum is wrong|it does not begin as a device file does);/];
      }
    }
  });
  assert.ok(count > 700, `${count} files`);
});

state('every truncation, and something added', async () => {
  const count = await damage(function* (bytes) {
    yield [Buffer.alloc(0), /is not used: it is empty;/];
    for (let length = 1; length < bytes.length; length++) yield [bytes.subarray(0, length), /is not used/];
    for (const more of ['\n', ' ', '\0', '{}']) yield [Buffer.concat([bytes, Buffer.from(more)]), /checksum/];
  });
  assert.ok(count > 400, `${count} files`);
});

state('a right checksum does not help what is no record', async () => {
  const good = recordOf(1);
  const without = Object.fromEntries(Object.entries(good).filter(([field]) => field !== 'saved'));
  const wrong: readonly (readonly [unknown, RegExp])[] = [
    [null, /it holds no record/],
    [[], /it holds no record/],
    ['x', /it holds no record/],
    [without, /saved is missing/],
    [{ ...good, more: 1 }, /more is unknown/],
    [{ ...good, name: 'ov1' }, /it is of 'ov1', but named for 'ov0'/],
    ...(
      [
        ['name', '', '.ov0', 'a/b', '../ov0', 'x'.repeat(16), 7, null],
        ['id', 0, -1, 1.5, '1', null],
        ['encap', '', 1, null],
        ['search', '', {}, null],
        ['vnetid', '', '-1', '1.5', 'x', 7, '9'.repeat(21)],
        ['properties', null, [], 'x', { mtu: null }, { mtu: true }, { mtu: {} }],
        ['isActivated', 0, 'true', null],
        ['mac', '', '02:08:20:1:2:3', '02:08:20:01:02:0G', 'FF:FF:FF:FF:FF:FF', 7],
      ] as const
    ).flatMap(([field, ...values]) =>
      values.map(
        (value) => [{ ...good, [field]: value }, new RegExp(`${field} is not what it may be`)] as const,
      ),
    ),
  ];
  const count = await damage(function* () {
    for (const [device, reason] of wrong) yield [seal(DEVICE_VERSION, device), reason];
    yield [seal(0, good), /its format 0 is too old/];
  });
  assert.is(count, wrong.length + 1);
});

state('what is no file at all is set aside, unread and not followed', async () => {
  await inDirectory((directory) => {
    const store = StateStore.open(directory);
    store.save(recordOf(1));
    store.save(recordOf(2, 'ov1'));
    const target = join(directory, 'elsewhere');
    writeFileSync(target, readFileSync(fileOf(directory)));
    const bad: readonly (readonly [RegExp, (path: string) => void])[] = [
      [/it is a symbolic link/, (path) => symlinkSync(target, path)],
      [/it is not a regular file/, (path) => mkdirSync(path)],
      [/it is not a regular file/, (path) => assert.is(spawnSync('mkfifo', [path]).status, 0)],
      [
        /it is 1073741824 bytes long, and may be/,
        (path) => {
          writeFileSync(path, '');
          truncateSync(path, 2 ** 30);
        },
      ],
    ];
    for (const [reason, make] of bad) {
      rmSync(fileOf(directory), { force: true });
      make(fileOf(directory));
      const { devices, problems } = store.load();
      assert.equal(devices, [recordOf(2, 'ov1')]);
      assert.match(problems[0]!.reason, reason);
      assert.is(problems.length, 1);
    }
    assert.is(asidesIn(directory).length, bad.length);
    writeFileSync(join(directory, 'devices', 'a name.json'), 'x');
    writeFileSync(join(directory, 'devices', 'notes.txt'), 'x');
    assert.is(store.load().problems.length, 1);
    assert.ok(devicesIn(directory).includes('notes.txt'), 'what is not ours is left alone');
  });
});

state('of the files set aside the latest are kept', async () => {
  await inDirectory(async (directory) => {
    const store = StateStore.open(directory);
    // A device whose file looks like one of another that was set aside is not taken for it.
    store.save(recordOf(3, 'ov0.json.bad-1'));
    for (let count = 0; count < ASIDE_MAX + 4; count++) {
      writeFileSync(fileOf(directory), `${count}`);
      assert.is(store.load().problems.length, 1);
    }
    const kept = asidesIn(directory).filter((file) => !file.endsWith('.json'));
    const contents = kept.map((file) => readFileSync(join(directory, 'devices', file), 'utf8'));
    assert.equal(contents, ['4', '5', '6', '7', '8', '9', '10', '11']);
    assert.equal(store.load().devices, [recordOf(3, 'ov0.json.bad-1')]);
  });
});

state('a file of a newer overlayd is left alone until somebody takes it away', async () => {
  await inDirectory(async (directory) => {
    const newer = seal(DEVICE_VERSION + 1, { whatever: 'it holds' });
    const store = StateStore.open(directory);
    store.save(recordOf(2, 'ov1'));
    writeFileSync(fileOf(directory), newer);
    writeFileSync(targetsFileOf(directory), headLine(2));
    const { devices, problems } = store.load();
    assert.equal(devices, [recordOf(2, 'ov1')]);
    assert.equal(
      problems.map(({ file, name, code }) => [file, name, code]),
      [[fileOf(directory), 'ov0', 'state_newer']],
    );
    assert.match(problems[0]!.reason, /has format 2, and this overlayd knows none above 1: run the newer/);
    for (const other of [store, StateStore.open(directory)]) {
      await assertRefused(() => other.save(recordOf(1)), 'ENOTSUP', 'state_newer', /ov0\.json has format 2/);
      await assertRefused(() => other.remove('ov0'), 'ENOTSUP', 'state_newer');
      await assertRefused(
        other.saveTargets('ov0', []),
        'ENOTSUP',
        'state_newer',
        /targets\/ov0 has format 2/,
      );
      await assertRefused(loadAll(other), 'ENOTSUP', 'state_newer');
    }
    assert.equal(readFileSync(fileOf(directory)), newer);
    assert.is(readFileSync(targetsFileOf(directory), 'utf8'), headLine(2));
    assert.equal(devicesIn(directory), ['ov0.json', 'ov1.json']);
    rmSync(fileOf(directory));
    store.save(recordOf(1));
    assert.equal(store.load().devices, [recordOf(1), recordOf(2, 'ov1')]);
    assert.equal(await loadAll(store), [], 'targets of before do not come with a new device');
  });
});

state('files of older formats are read by the table of migrations', async () => {
  await inDirectory((directory) => {
    const asked: unknown[] = [];
    const store = StateStore.open(
      directory,
      new Map([
        [
          0,
          (device: unknown) => {
            asked.push(device);
            const { link, ...rest } = device as { link: string | null };
            if (link === 'impossible') throw new TypeError('no such link');
            return { ...rest, mac: link };
          },
        ],
      ]),
    );
    const { mac, ...rest } = recordOf(1);
    const old = { ...rest, link: mac };
    store.save(recordOf(2, 'ov1'));
    writeFileSync(fileOf(directory), seal(0, old));
    assert.equal(store.load(), { devices: [recordOf(1), recordOf(2, 'ov1')], problems: [] });
    assert.equal(asked, [old], 'and only those');
    store.save({ ...recordOf(1), id: 9 });
    assert.is((JSON.parse(readFileSync(fileOf(directory), 'utf8')) as { version: number }).version, 1);
    for (const [bad, reason] of [
      [{ ...old, link: 'impossible' }, /its format 0 holds what it cannot: no such link/],
      [{ ...old, link: 7 }, /mac is not what it may be/],
    ] as const) {
      writeFileSync(fileOf(directory), seal(0, bad));
      assert.match(store.load().problems[0]!.reason, reason);
    }
  });
});

state('what a plugin saves and JSON cannot carry is refused, and the record before stays', async () => {
  await inDirectory(async (directory) => {
    const store = StateStore.open(directory);
    store.save(recordOf(1));
    const circle: { self?: unknown } = {};
    circle.self = circle;
    let deep: unknown = 0;
    for (let depth = 0; depth < 100_000; depth++) deep = [deep];
    const throws = { toJSON: () => assert.unreachable('mine') };
    for (const saved of [1n, circle, deep, throws, undefined, () => {}]) {
      const record = { ...recordOf(2), saved };
      await assertRefused(
        () => store.save(record),
        'EINVAL',
        'state_failed',
        /ov0 cannot be kept: its lookup plugin/,
      );
    }
    const much = { ...recordOf(2), saved: 'x'.repeat(DEVICE_FILE_BYTES_MAX) };
    await assertRefused(() => store.save(much), 'EFBIG', 'state_failed', /may be 1048576/);
    assert.equal(store.load(), { devices: [recordOf(1)], problems: [] });
    assert.throws(() => store.save({ ...recordOf(2), mac: 'x' }), /mac is not what it may be/);
    assert.throws(() => store.remove('../ov0'), /no device's name/);
  });
});

state('what a crash left behind is removed, or brought to its end', async () => {
  await inDirectory(async (directory) => {
    const store = StateStore.open(directory);
    store.save(recordOf(1));
    store.save(recordOf(2, 'ov1'));
    await store.saveTargets('ov1', targetsOf(2));
    for (const name of ['.tmp-ov0.json', '.old-ov0.json', '.gone-ov2.json', '.tmp-ov3.json']) {
      writeFileSync(join(directory, 'devices', name), 'x');
    }
    for (const name of ['.tmp-ov5', '.gone-ov1', '.gone-ov2', 'ov2']) {
      writeFileSync(join(directory, 'targets', name), 'x');
    }
    await store.saveTargets('ov0', targetsOf(1));
    const kept = readFileSync(targetsFileOf(directory));
    rmSync(targetsFileOf(directory));
    writeFileSync(join(directory, 'targets', '.gone-ov0'), kept);
    assert.equal(store.load(), { devices: [recordOf(1), recordOf(2, 'ov1')], problems: [] });
    assert.equal(devicesIn(directory), ['ov0.json', 'ov1.json']);
    assert.equal(targetsIn(directory), ['ov0', 'ov1']);
    assert.equal(await loadAll(store), targetsOf(1));
    assert.equal(await loadAll(store, 'ov1'), targetsOf(2));
    // A device by the name of a draft's end is none of a draft.
    store.save(recordOf(3, 'ov0.tmp'));
    assert.is(store.load().devices.length, 3);
    store.remove('ov0');
    store.remove('ov0');
    assert.equal(devicesIn(directory), ['ov0.tmp.json', 'ov1.json']);
    assert.equal(targetsIn(directory), ['ov1']);
  });
});

const destination = fc.oneof(
  fc.record({ ip: fc.ipV4(), port: fc.integer({ min: 1, max: 65535 }) }),
  fc.record({ mac: fc.constantFrom('02:00:00:00:00:01', '02:00:00:00:00:02') }),
  fc.record({ ip: fc.ipV6() }),
);
const rows: fc.Arbitrary<TargetRecord[]> = fc.array(
  fc.record({
    mac: fc.integer({ min: 0, max: 2 ** 48 - 1 }),
    route: fc.oneof(
      destination,
      fc.constant('drop' as const),
      fc.array(destination, { minLength: 1, maxLength: 5 }).map((replicate) => ({ replicate })),
      fc.array(destination, { minLength: 1, maxLength: 5 }).map((spread) => ({ spread })),
    ),
    source: fc.oneof(
      fc.constantFrom('lookup', 'operator', 'saved'),
      fc.string({ unit: 'binary', maxLength: 9 }),
    ),
  }),
  { maxLength: 300 },
);

state('200 random sets of targets come back as they were, in their order', async () => {
  await inDirectory(async (directory) => {
    const store = StateStore.open(directory);
    assert.equal(await loadAll(store), [], 'none are none');
    await fc.assert(
      fc.asyncProperty(rows, async (given) => {
        await store.saveTargets('ov0', given);
        assert.equal(await loadAll(store), json(given));
      }),
      { numRuns: 200 },
    );
  });
});

state(
  'targets: every byte changed and every truncation: not one row is given, the file is set aside',
  async () => {
    await inDirectory(async (directory) => {
      const store = StateStore.open(directory);
      store.save(recordOf(1));
      const given = [...targetsOf(1).slice(0, 6), { mac: 1, route: 'drop', source: 'operator' } as const];
      await store.saveTargets('ov0', given);
      const bytes = readFileSync(targetsFileOf(directory));
      const bad: Buffer[] = [];
      for (let at = 0; at < bytes.length; at++) {
        const changed = Buffer.from(bytes);
        changed[at]! ^= 1;
        // The version is not a secret: another one is what it says.
        if (at !== headLine(1).length - 2) bad.push(changed);
        bad.push(bytes.subarray(0, at));
      }
      for (const one of bad) {
        writeFileSync(targetsFileOf(directory), one);
        let count = 0;
        const load = async () => {
          for await (const some of store.loadTargets('ov0')) count += some.length;
        };
        await assertRefused(
          load,
          'EBADMSG',
          'state_bad',
          /targets\/ov0 is not used: .*; it is now .*ov0\.bad-/,
        );
        assert.is(count, 0);
      }
      assert.ok(bad.length > 500);
      assert.is(targetsIn(directory).length, ASIDE_MAX);
      assert.equal(store.load(), { devices: [recordOf(1)], problems: [] }, 'the device does not need them');
      await store.saveTargets('ov0', given);
      assert.equal(await loadAll(store), given);
    });
  },
);

state(
  'saves of one device do not mix: each is whole, the last one stays, and too many are refused',
  async () => {
    await inDirectory(async (directory) => {
      const store = StateStore.open(directory);
      let at = 0;
      let most = 0;
      function* counted(generation: number) {
        at++;
        most = Math.max(most, at);
        yield* targetsOf(generation);
        at--;
      }
      const saves = [1, 2, 3, 4, 5].map((generation) => store.saveTargets('ov0', counted(generation)));
      const other = store.saveTargets('ov1', targetsOf(9));
      const results = await Promise.all(
        saves.map(async (save, index) => {
          await save;
          return JSON.stringify(await loadAll(store)) === JSON.stringify(targetsOf(index + 1));
        }),
      );
      await other;
      assert.is(most, 1, 'one at a time');
      assert.is(results.at(-1), true);
      assert.equal(await loadAll(store), targetsOf(5));
      assert.equal(await loadAll(store, 'ov1'), targetsOf(9));
      const many = Array.from({ length: 12 }, () => store.saveTargets('ov0', targetsOf(6)));
      const outcomes = await Promise.allSettled(many);
      assert.is(outcomes.filter(({ status }) => status === 'rejected').length, 3);
      await assertRefused(many.at(-1)!, 'EAGAIN', 'state_failed');
      assert.equal(await loadAll(store), targetsOf(6));
    });
  },
);

state(
  'a save of targets ends without a trace: by its signal, by its rows, by the removal of the device',
  async () => {
    await inDirectory(async (directory) => {
      const store = StateStore.open(directory);
      store.save(recordOf(1));
      await store.saveTargets('ov0', targetsOf(1));
      const abort = new AbortController();
      function* aborting() {
        yield* targetsOf(2);
        abort.abort(new RangeError('enough'));
        yield* targetsOf(2);
      }
      const refused = async (work: Promise<void>) =>
        work.then(() => 'kept').catch((error: Error) => error.message);
      assert.is(await refused(store.saveTargets('ov0', aborting(), abort.signal)), 'enough');
      function* throwing() {
        yield* targetsOf(2);
        throw new RangeError('no more');
      }
      assert.is(await refused(store.saveTargets('ov0', throwing())), 'no more');
      assert.equal(await loadAll(store), targetsOf(1));
      assert.equal(targetsIn(directory), ['ov0']);
      const recorded = targetsOf(2)[0]!;
      let isEnded = false;
      function* removing() {
        try {
          yield* targetsOf(2);
          store.remove('ov0');
          for (let count = 0; count < 100_000; count++) yield recorded;
        } finally {
          isEnded = true;
        }
      }
      const during = store.saveTargets('ov0', removing());
      const waiting = store.saveTargets('ov0', targetsOf(3));
      await Promise.all([during, waiting]);
      assert.is(isEnded, true);
      assert.equal(targetsIn(directory), []);
      assert.equal(devicesIn(directory), []);
      // One of that name that comes about afterwards is another device.
      await store.saveTargets('ov0', targetsOf(4));
      assert.equal(await loadAll(store), targetsOf(4));
    });
  },
);

state('100,000 targets, more routes than are numbered at a time, and main goes on meanwhile', async () => {
  await inDirectory(async (directory) => {
    const store = StateStore.open(directory);
    const count = 100_000;
    const routes = 3 * ENTRIES_MAX + 5;
    const row = (index: number): TargetRecord => ({
      mac: 0x020000000000 + index * 3,
      route: {
        ip: `10.${(index % routes) >> 16}.${((index % routes) >> 8) & 255}.${(index % routes) & 255}`,
      },
      source: 'lookup',
    });
    function* all() {
      for (let index = 0; index < count; index++) yield row(index);
    }
    let turns = 0;
    let isOver = false;
    const turn = () => {
      turns++;
      if (!isOver) setImmediate(turn);
    };
    setImmediate(turn);
    await store.saveTargets('ov0', all());
    const turnsOfSave = turns;
    let index = 0;
    let longest = 0;
    for await (const some of store.loadTargets('ov0')) {
      longest = Math.max(longest, some.length);
      for (const one of some) {
        const expected = row(index++);
        if (one.mac !== expected.mac || JSON.stringify(one) !== JSON.stringify(expected))
          assert.equal(one, expected);
      }
    }
    isOver = true;
    assert.is(index, count);
    assert.ok(longest <= 2000, `${longest} rows at once`);
    assert.ok(turnsOfSave >= 100, `${turnsOfSave} turns while they were saved`);
    assert.ok(turns - turnsOfSave >= 50, `${turns - turnsOfSave} turns while they were loaded`);
  });
});

state.run();

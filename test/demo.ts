/** `npm run demo` as everybody may run it: what it says, how it ends, and that nothing of it is left. */
import { spawnSync } from 'node:child_process';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { USER } from './harness/as-user.js';
import { DemoRun, userNamespaceFault, type Who } from './harness/demo-run.js';
import { has, skipped, testWith } from './harness/needs.js';

const demo = suite('demo');
const rootNeeds = ['root', '/dev/net/tun'];
const mountNeeds = ['root', 'unshare', 'mount', 'mknod'];

/** Runs a test on one run of the demo, and asserts that nothing is left of it. */
async function withRun(
  who: Who,
  flags: readonly string[],
  work: (run: DemoRun) => Promise<void>,
): Promise<void> {
  const run = new DemoRun(who, ...flags);
  let left: string[] = [];
  try {
    await work(run);
  } catch (error) {
    run.signal('SIGTERM');
    await run.end();
    throw error;
  } finally {
    left = run.leftovers();
  }
  assert.equal(left, [], 'nothing is left of the demo');
}

async function assertSuccess(run: DemoRun, ...texts: readonly (string | RegExp)[]): Promise<void> {
  assert.is(await run.end(), 0, run.output);
  for (const text of [
    /throughput \d+\.\d\d Gbit\/s/,
    'OK: 12 of 12 pings answered',
    'the books balance',
    ...texts,
  ]) {
    assert.match(run.output, text);
  }
}

testWith(demo, rootNeeds, 'root: two namespaces', () =>
  withRun('self', ['--megabytes', '20'], async (run) => {
    await assertSuccess(
      run,
      '20 MB of TCP arrived intact',
      '20000000 bytes arrived intact',
      /overlay0 +tun /,
    );
    assert.match(run.output, /overlay0 +vxlan\/listen_ip +rw +y +192\.0\.2\.1/);
    assert.match(run.output, /overlay0 +ONLINE/);
    assert.match(run.output, /192\.0\.2\.1:4789 +rx_read +\d+/);
  }),
);

testWith(demo, [], 'in memory', () =>
  withRun('self', ['--in-memory', '--megabytes', '10'], (run) =>
    assertSuccess(run, '10 MB of frames arrived intact'),
  ),
);

/** Tests that need user namespaces for an ordinary user. */
function testNested(name: string, handler: () => Promise<void>): void {
  const fault = mountNeeds.every(has) ? userNamespaceFault() : undefined;
  if (fault === undefined) testWith(demo, [...mountNeeds, '/dev/net/tun'], name, handler);
  else skipped.push(`${name}: needs user namespaces (${fault})`);
}

testNested('an ordinary user with a tun node: namespaces in a user namespace', () =>
  withRun('user with tun', ['--megabytes', '20'], (run) =>
    assertSuccess(run, 'starting again in a user namespace', '20 MB of TCP arrived intact'),
  ),
);

testWith(demo, mountNeeds, 'an ordinary user without a tun node: says so, and runs in memory', () =>
  withRun('user without tun', ['--megabytes', '10'], (run) =>
    assertSuccess(run, '- /dev/net/tun is missing: modprobe tun', '10 MB of frames arrived intact'),
  ),
);

// ─── Its end ────────────────────────────────────────────────────────────────────────────────────────────

const interrupted: readonly [who: Who, ...flags: string[]][] = [
  ['self'],
  ['self', '--in-memory'],
  ['user with tun'],
];

for (const [who, ...flags] of interrupted) {
  const test = async () => {
    await withRun(who, [...flags, '--megabytes', '20000'], async (run) => {
      await run.printed('20000 MB of');
      run.signal('SIGINT');
      assert.is(await run.end(), 130, run.output);
      assert.match(run.output, 'SIGINT: cleaning up');
      assert.match(run.output, 'Cleaned up.');
    });
  };
  const name = `Ctrl-C in the middle ends it all: ${[who, ...flags].join(' ')}`;
  if (who === 'self') testWith(demo, flags.length > 0 ? [] : rootNeeds, name, test);
  else testNested(name, test);
}

testWith(demo, rootNeeds, 'a second Ctrl-C does not wait', () =>
  withRun('self', ['--megabytes', '20000'], async (run) => {
    await run.printed('20000 MB of');
    // A daemon that stands still does not end when it is asked to.
    const [daemon] = run.pids('/b.sock');
    process.kill(daemon!, 'SIGSTOP');
    run.signal('SIGINT');
    await run.printed('SIGINT: cleaning up');
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const begun = performance.now();
    run.signal('SIGINT');
    assert.is(await run.end(), 130, run.output);
    assert.ok(performance.now() - begun < 1500, 'it ended at once');
  }),
);

testWith(demo, rootNeeds, 'traffic that fails is a failure', () =>
  withRun('self', ['--megabytes', '20000'], async (run) => {
    await run.printed('20000 MB of');
    const [daemon] = run.pids('/b.sock');
    process.kill(daemon!, 'SIGKILL');
    assert.is(await run.end(), 1, run.output);
    assert.match(run.output, 'FAILED: overlayd of host b ended: SIGKILL');
  }),
);

// ─── --stay ─────────────────────────────────────────────────────────────────────────────────────────────

/** The command the demo prints below a sentence. */
function printedCommand(run: DemoRun, sentence: string): string[] {
  const lines = run.output.split('\n');
  return (lines[lines.findIndex((line) => line.includes(sentence)) + 1] ?? '').trim().split(' ');
}

async function assertStays(run: DemoRun, uid: number): Promise<void> {
  await run.printed('the overlay of host b');
  await run.printed('show-overlay\n');
  const attempt = (...words: readonly string[]) =>
    spawnSync(words[0]!, words.slice(1), { uid, gid: uid, cwd: '/tmp', encoding: 'utf8', timeout: 20_000 });
  for (const words of [
    [...printedCommand(run, 'ping host b from host a'), '-c', '1', '-W', '2'],
    printedCommand(run, 'counters and drops of host a'),
  ]) {
    const { status, stdout, stderr } = attempt(...words);
    assert.is(status, 0, `${words.join(' ')}: ${stdout}${stderr}`);
  }
  run.signal('SIGINT');
  assert.is(await run.end(), 0, run.output);
}

const stay = ['--stay', '--megabytes', '5'];
testWith(demo, [...rootNeeds, 'nsenter', 'ping'], '--stay: the commands it prints work', () =>
  withRun('self', stay, (run) => assertStays(run, 0)),
);
if (has('nsenter') && has('ping')) {
  testNested('--stay of an ordinary user: the commands it prints work', () =>
    withRun('user with tun', stay, (run) => assertStays(run, USER)),
  );
}

// ─── Usage ──────────────────────────────────────────────────────────────────────────────────────────────

for (const flags of [['--megabytes', '0'], ['--megabytes', 'many'], ['--no-such-flag'], ['extra']]) {
  demo(`usage: ${flags.join(' ')} is refused`, () =>
    withRun('self', flags, async (run) => assert.is(await run.end(), 2)),
  );
}

demo.run();

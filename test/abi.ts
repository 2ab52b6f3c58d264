/** The numbers in src/sys/abi.ts and assembly/message.ts against the C compiler's. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite as createSuite } from 'uvu';
import * as assert from 'uvu/assert';
import { macros, structs } from '../src/sys/abi.js';
import { testWith } from './harness/needs.js';

const suite = createSuite('abi');

/** What is needed beyond the headers of the macros. */
const moreHeaders = [
  'stddef.h',
  'stdio.h',
  'sys/ioctl.h',
  'sys/time.h',
  'sys/uio.h',
  'linux/filter.h',
  'linux/virtio_net.h',
];

/** C expression to the number that is stated for it. */
function expectations(): Map<string, number> {
  const expected = new Map<string, number>();
  for (const table of Object.values(macros)) {
    for (const [name, value] of Object.entries(table)) expected.set(name, value);
  }
  for (const [name, fields] of Object.entries(structs)) {
    for (const [field, value] of Object.entries(fields)) {
      const expression = field === 'size' ? `sizeof(struct ${name})` : `offsetof(struct ${name}, ${field})`;
      expected.set(expression, value);
    }
  }
  return expected;
}

/** Compiles a program that prints every expression on a line of its own, and runs it. */
function evaluate(expressions: readonly string[]): number[] {
  const folder = mkdtempSync(join(tmpdir(), 'overlayd-abi-'));
  try {
    const program = [
      '#define _GNU_SOURCE',
      ...[...moreHeaders, ...Object.keys(macros)].map((header) => `#include <${header}>`),
      'int main(void) {',
      ...expressions.map((expression) => `  printf("%llu\\n", (unsigned long long)(${expression}));`),
      '  return 0;',
      '}',
    ];
    writeFileSync(join(folder, 'abi.c'), `${program.join('\n')}\n`);
    execFileSync('gcc', ['-o', join(folder, 'abi'), join(folder, 'abi.c')], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const output = execFileSync(join(folder, 'abi'), [], { encoding: 'utf8' });
    return output.trim().split('\n').map(Number);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

testWith(suite, ['gcc'], 'every macro, size and offset is the C compiler’s', () => {
  const expected = expectations();
  const found = evaluate([...expected.keys()]);
  assert.is(found.length, expected.size);
  const wrong = [...expected].flatMap(([expression, value], row) =>
    found[row] === value ? [] : [`${expression} is ${found[row]}, not ${value}`],
  );
  assert.equal(wrong, []);
});

suite('the offsets in assembly/message.ts are those of iovec and mmsghdr', () => {
  const source = readFileSync(join(import.meta.dirname, '../../assembly/message.ts'), 'utf8');
  const stated = new Map<string, number>();
  let struct = '';
  for (const line of source.slice(0, source.indexOf('*/')).split('\n')) {
    struct = /^ \* {3}(iovec|mmsghdr) /.exec(line)?.[1] ?? struct;
    for (const [, offset, field] of line.matchAll(/(\d+) ([a-z]+) [iu]\d+/g)) {
      stated.set(`${struct}.${field}`, Number(offset));
    }
  }
  for (const [, name, value] of source.matchAll(/^export const ([A-Z_]+): \w+ = (\d+);$/gm)) {
    stated.set(name!, Number(value));
  }
  const { iovec, mmsghdr } = structs;
  const compiled = new Map<string, number>([
    ['iovec.base', iovec.iov_base],
    ['iovec.len', iovec.iov_len],
    ['mmsghdr.name', mmsghdr['msg_hdr.msg_name']],
    ['mmsghdr.namelen', mmsghdr['msg_hdr.msg_namelen']],
    ['mmsghdr.iov', mmsghdr['msg_hdr.msg_iov']],
    ['mmsghdr.iovlen', mmsghdr['msg_hdr.msg_iovlen']],
    ['mmsghdr.control', mmsghdr['msg_hdr.msg_control']],
    ['mmsghdr.controllen', mmsghdr['msg_hdr.msg_controllen']],
    ['mmsghdr.flags', mmsghdr['msg_hdr.msg_flags']],
    ['mmsghdr.len', mmsghdr.msg_len],
    ['IOVEC_BYTES', iovec.size],
    ['MESSAGE_BYTES', mmsghdr.size],
    ['MESSAGE_NAME_BYTES', mmsghdr['msg_hdr.msg_namelen']],
    ['MESSAGE_FLAGS', mmsghdr['msg_hdr.msg_flags']],
    ['MESSAGE_LENGTH', mmsghdr.msg_len],
    ['MESSAGE_CONTROL', mmsghdr['msg_hdr.msg_control']],
    ['MESSAGE_CONTROL_BYTES', mmsghdr['msg_hdr.msg_controllen']],
  ]);
  assert.is(compiled.size, 17);
  assert.equal([...stated].sort(), [...compiled].sort());
});

suite.run();

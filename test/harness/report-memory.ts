/**
 * Loaded into a daemon before it starts (`node --expose-gc --import`): when it gets SIGWINCH it collects its garbage and writes what
 * memory is left to it on stderr.
 */
process.on('SIGWINCH', () => {
  globalThis.gc!();
  const { heapUsed, heapTotal, rss } = process.memoryUsage();
  // What is not the collector's: native memory, code, stacks.
  process.stderr.write(`memory ${heapUsed} ${rss - heapTotal}\n`);
});

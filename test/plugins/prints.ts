/** Prints without end, in long lines and in short ones. */
import { dynamic } from './make.js';

export const plugin = dynamic('prints', () => {
  let timer: NodeJS.Immediate | undefined;
  return {
    start: () => {
      const print = () => {
        for (let line = 0; line < 100; line++) console.error('a line');
        process.stdout.write('y'.repeat(3_000_000));
        process.stdout.write(Buffer.alloc(1_000_000, '\n'));
        process.emitWarning('a warning');
        timer = setImmediate(print);
      };
      print();
    },
    stop: () => clearImmediate(timer),
    lookup: () => 'drop',
  };
});

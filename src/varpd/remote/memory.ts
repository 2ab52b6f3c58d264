/** In the plugin's thread: how much memory the plugin holds. */
import v8 from 'node:v8';
import vm from 'node:vm';

export class Memory {
  readonly #collect = collector();

  constructor(readonly limitBytes: number) {}

  /** Bytes on the heap and beside it (buffers). What is above the limit is counted without garbage. */
  used(): number {
    const used = usedNow();
    if (used <= this.limitBytes) return used;
    // Buffers that the first one finds are given back by the second.
    this.#collect();
    this.#collect();
    return usedNow();
  }
}

function usedNow(): number {
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** The engine gives it to contexts that are made while the flag is set. */
function collector(): () => void {
  const { gc } = globalThis;
  if (gc) return () => void gc();
  v8.setFlagsFromString('--expose-gc');
  const collect = vm.runInNewContext('gc') as () => void;
  v8.setFlagsFromString('--no-expose-gc');
  return collect;
}

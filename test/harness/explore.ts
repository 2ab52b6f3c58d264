/**
 * Enumerates what threads can do to each other: from a state, each thread takes its next step (one access to a shared
 * word, and what it does by itself until the next one), in every order. States that have been met are not gone on from
 * again, so that every interleaving is covered and none is walked twice.
 */

/** A thread: what its next step can make of the state, which it may change; none when it must wait for another. */
export interface Thread<State> {
  readonly name: string;
  step(state: State): readonly ((state: State) => void)[];
}

export interface Exploration {
  readonly states: number;
  /** Steps from one state to another; an interleaving is a way along them. */
  readonly steps: number;
  /** What was found wrong first, with the steps that led to it. */
  readonly fault: string | undefined;
}

export interface ExploreOptions<State> {
  readonly initial: State;
  readonly threads: readonly Thread<State>[];
  /** What is wrong with a state, or undefined. */
  fault(state: State): string | undefined;
  /** All that was to be done is done. */
  isOver(state: State): boolean;
}

/** More than any of our protocols comes to. */
const STATES_MAX = 3_000_000;

interface Node<State> {
  readonly state: State;
  readonly before: Node<State> | undefined;
  readonly by: string;
  readonly after: string[];
}

/** States must be plain data, in which the order of keys never changes. */
export function explore<State extends object>(options: ExploreOptions<State>): Exploration {
  const { initial, threads, isOver } = options;
  const first = JSON.stringify(initial);
  const nodes = new Map<string, Node<State>>([
    [first, { state: initial, before: undefined, by: '', after: [] }],
  ]);
  const over: string[] = [];
  let steps = 0;
  // A Map gives what is added while it is walked through, in order: breadth first, so that a fault's story is short.
  for (const [key, node] of nodes) {
    const wrong = options.fault(node.state);
    if (wrong) return { states: nodes.size, steps, fault: `${wrong}: ${story(node)}` };
    if (isOver(node.state)) over.push(key);
    for (const thread of threads) {
      for (const act of thread.step(node.state)) {
        const state = JSON.parse(key) as State;
        act(state);
        steps++;
        const next = JSON.stringify(state);
        node.after.push(next);
        if (!nodes.has(next)) nodes.set(next, { state, before: node, by: thread.name, after: [] });
      }
    }
    if (nodes.size > STATES_MAX) throw new Error(`more than ${STATES_MAX} states`);
  }
  const stuck = stuckState(nodes, over);
  const fault = stuck && `it never comes to an end: ${story(stuck)}`;
  return { states: nodes.size, steps, fault };
}

/** A state from which none that is over can be reached. */
function stuckState<State extends object>(
  nodes: ReadonlyMap<string, Node<State>>,
  over: readonly string[],
): Node<State> | undefined {
  const into = new Map<string, string[]>();
  for (const [key, { after }] of nodes) {
    for (const next of after) {
      const list = into.get(next);
      if (list) list.push(key);
      else into.set(next, [key]);
    }
  }
  const ending = new Set(over);
  for (const key of ending) for (const before of into.get(key) ?? []) ending.add(before);
  for (const [key, node] of nodes) if (!ending.has(key)) return node;
  return undefined;
}

/** The steps that led to a state, each with what it changed. */
function story<State extends object>(node: Node<State>): string {
  const steps: string[] = [];
  for (let each = node; each.before; each = each.before) {
    const before = new Map<string, unknown>(Object.entries(each.before.state));
    const changed = Object.entries(each.state).filter(
      ([key, value]) => JSON.stringify(value) !== JSON.stringify(before.get(key)),
    );
    steps.unshift(`${each.by} ${JSON.stringify(Object.fromEntries(changed))}`);
  }
  return `\n${steps.join('\n')}`;
}

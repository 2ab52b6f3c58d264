/** What was refused to clients of the control sockets, by name, and to whom last. */

/** Names and what each counts. */
export const refusals = {
  connections: 'connections refused because too many were open (too_many_connections)',
  rate: 'connections and requests refused because a user sent too many (too_many_requests)',
  pipelined: 'connections cut because a request came before the answer to the one before it',
  late: 'connections cut because a request did not come in time (request_late)',
  unread: 'requests refused because a user does not read his answers (answers_unread)',
  unread_cut: 'connections cut because an answer was not read in time',
  idle_cut: 'idle connections closed because a user had many',
  readers: 'streams of events refused because too many were open (too_many_readers)',
  handles: 'external handles refused because too many were open (too_many_handles)',
  pauses: 'times at which the public socket was left alone for a moment because too many connected',
} as const;
export type RefusalName = keyof typeof refusals;
export const refusalNames = Object.keys(refusals) as readonly RefusalName[];

export class Refusals {
  readonly counts: Readonly<Record<RefusalName, number>> & Record<RefusalName, number> = Object.fromEntries(
    refusalNames.map((name) => [name, 0]),
  ) as Record<RefusalName, number>;
  #lastUid: number | undefined;

  /** User who was refused something last; undefined while nobody was. */
  get lastUid(): number | undefined {
    return this.#lastUid;
  }

  note(name: RefusalName, uid: number): void {
    this.counts[name]++;
    this.#lastUid = uid;
  }
}

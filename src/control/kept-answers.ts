/**
 * Answers as they were sent, for users who may not write: whoever asks the same within CONTROL_KEPT_MS gets the same, unless
 * an event has happened meanwhile. A list is thus not built again and again for somebody who asks again and again.
 */
import { CONTROL_KEPT_MS } from '../limits.js';
import { monotonicMs } from '../sys/clock.js';

const ANSWERS_MAX = 64;
const CHARACTERS_MAX = 4 * 1024 * 1024;

interface Answer {
  readonly text: string;
  readonly atMs: number;
  /** Number of the newest event at that time. */
  readonly event: number;
}

export class KeptAnswers {
  /** The oldest first. */
  readonly #answers = new Map<string, Answer>();
  #characters = 0;

  constructor(readonly nowMs: () => number = monotonicMs) {}

  /** @param event number of the newest event */
  get(key: string, event: number): string | undefined {
    const answer = this.#answers.get(key);
    if (!answer) return undefined;
    if (answer.event === event && this.nowMs() - answer.atMs < CONTROL_KEPT_MS) return answer.text;
    this.#drop(key, answer);
    return undefined;
  }

  keep(key: string, event: number, text: string): void {
    const known = this.#answers.get(key);
    if (known) this.#drop(key, known);
    this.#answers.set(key, { text, atMs: this.nowMs(), event });
    this.#characters += text.length;
    for (const [oldest, answer] of this.#answers) {
      if (this.#answers.size <= ANSWERS_MAX && this.#characters <= CHARACTERS_MAX) break;
      this.#drop(oldest, answer);
    }
  }

  #drop(key: string, { text }: Answer): void {
    this.#answers.delete(key);
    this.#characters -= text.length;
  }
}

/** What the scenes of a test file have shown, compared with what `reference/interoperability.ts` says that it shows. */
import * as assert from 'uvu/assert';
import { oracleRows, type PeerRow, peerRows } from '../reference/interoperability.js';
import type { Family, Guest } from './guest.js';
import { interoperate } from './traffic.js';

/** One place of the matrix: an encapsulation over a family of the underlay. */
type Place = readonly [encapsulation: string, family: Family];

const nameOf = (how: string, [encapsulation, family]: Place) => `${how}: ${encapsulation} over IPv${family}`;

export class Shown {
  readonly #shown = new Set<string>();

  /** @param file name of the test file */
  constructor(readonly file: string) {}

  /** The places that are to be shown of one way that frames find. */
  places(how: string): Place[] {
    const { encapsulations, families } = this.#row(how);
    return encapsulations.flatMap((encapsulation) =>
      families.map((family): Place => [encapsulation, family]),
    );
  }

  /** Runs the traffic of the row between guests that reach each other. */
  async show(how: string, place: Place, guests: readonly Guest[]): Promise<void> {
    const name = nameOf(how, place);
    await interoperate(this.#row(how).traffic, guests).catch((error: Error) => {
      error.message = `${name}: ${error.message}`;
      throw error;
    });
    this.#shown.add(name);
  }

  /** An oracle agrees with us about an encapsulation. */
  agreed(oracle: string, encapsulation: string): void {
    this.#shown.add(`${oracle}: ${encapsulation}`);
  }

  /** Asserts, when all else has run, that it is what the list has of the file. */
  assertAll(): void {
    const places = this.#rows().flatMap(({ how }) => this.places(how).map((place) => nameOf(how, place)));
    const agreements = oracleRows
      .filter(({ test }) => test[0] === this.file)
      .flatMap(({ oracle, encapsulations }) => encapsulations.map((each) => `${oracle}: ${each}`));
    const wanted = [...places, ...agreements];
    assert.ok(wanted.length > 0, `the list has nothing of test/${this.file}.ts`);
    assert.equal([...this.#shown].sort(), wanted.sort());
  }

  #rows(): readonly PeerRow[] {
    return peerRows.filter(({ test }) => test[0] === this.file);
  }

  #row(how: string): PeerRow {
    const row = this.#rows().find((each) => each.how === how);
    assert.ok(row, `the list has no row '${how}' of test/${this.file}.ts`);
    return row!;
  }
}

/** Samples of the end-to-end bench, put together over the rounds: as tables and as JSON. */
import { type Section, sections } from './measures/index.js';
import { describe, type Scene } from './scene.js';
import { median, spread } from './statistics.js';

/** What one peer gave in one round of one scene, by the names of the figures. */
export interface Sample {
  readonly scene: Scene;
  /** From 0. */
  readonly round: number;
  readonly peer: string;
  readonly figures: Readonly<Record<string, number>>;
  /** CPUs that other programs of the machine computed on meanwhile. */
  readonly others: number;
}

/** One figure of one peer in one scene over all rounds. */
export interface Summary {
  readonly median: number;
  readonly least: number;
  readonly most: number;
  /** Half the distance from least to most, as text. */
  readonly spread: string;
  /** Median of the ratios to the anchor in the same round: load that both saw falls out. */
  readonly ratio: number | undefined;
}

const NAME_WIDTH = 14;
const CELL_WIDTH = 24;

export class Report {
  readonly #samples: readonly Sample[];
  readonly #anchor: string;

  /** @param anchor name of the peer that the others are compared with */
  constructor(samples: readonly Sample[], anchor: string) {
    this.#samples = samples;
    this.#anchor = anchor;
  }

  /** Those with samples, in the order measured. */
  get scenes(): Scene[] {
    return [...new Set(this.#samples.map(({ scene }) => scene))];
  }

  /** Names of those with samples in the scene, in the order measured. */
  peers(scene: Scene): string[] {
    const names = this.#samples.filter((sample) => sample.scene === scene).map(({ peer }) => peer);
    return [...new Set(names)];
  }

  /** Undefined when the peer has no such figure. */
  summary(scene: Scene, peer: string, figure: string): Summary | undefined {
    const own = this.#values(scene, peer, figure);
    if (own.size === 0) return undefined;
    const anchor = this.#values(scene, this.#anchor, figure);
    const ratios = [...own].flatMap(([round, value]) => {
      const beside = anchor.get(round) ?? 0;
      return beside > 0 ? [value / beside] : [];
    });
    const values = [...own.values()];
    return {
      median: median(values),
      least: Math.min(...values),
      most: Math.max(...values),
      spread: values.length > 1 && median(values) > 0 ? spread(values) : '',
      ratio: ratios.length > 0 ? median(ratios) : undefined,
    };
  }

  /** CPUs that other programs computed on in the median sample, and in that with the most. */
  get others(): { readonly median: number; readonly most: number } {
    const each = this.#samples.map(({ others }) => others);
    return { median: median(each), most: Math.max(...each) };
  }

  /** A table for each scene and section. */
  table(): string {
    return this.scenes
      .flatMap((scene) => sections.map((section) => this.#section(scene, section)))
      .filter((text) => text !== '')
      .join('\n\n');
  }

  /** Everything: what was measured, and every sample. @param about what else is to be said of the run */
  json(about: object): string {
    const summaries = this.scenes.map((scene) => ({
      ...scene,
      peers: Object.fromEntries(this.peers(scene).map((peer) => [peer, this.#figures(scene, peer)])),
    }));
    const samples = this.#samples.map(({ scene, ...rest }) => ({ ...scene, ...rest }));
    const figures = sections.flatMap(({ measures }) => measures.flatMap((measure) => measure.figures));
    const { others } = this;
    return `${JSON.stringify({ ...about, others, anchor: this.#anchor, figures, summaries, samples }, null, 1)}\n`;
  }

  #values(scene: Scene, peer: string, figure: string): Map<number, number> {
    const values = new Map<number, number>();
    for (const sample of this.#samples) {
      const value = sample.figures[figure];
      if (sample.scene === scene && sample.peer === peer && value !== undefined) {
        values.set(sample.round, value);
      }
    }
    return values;
  }

  #figures(scene: Scene, peer: string): Record<string, Summary> {
    const names = this.#samples
      .filter((sample) => sample.scene === scene && sample.peer === peer)
      .flatMap((sample) => Object.keys(sample.figures));
    return Object.fromEntries([...new Set(names)].map((name) => [name, this.summary(scene, peer, name)!]));
  }

  #section(scene: Scene, { title, measures }: Section): string {
    const peers = this.peers(scene);
    const figures = measures
      .flatMap((measure) => measure.figures)
      .filter(({ name }) => peers.some((peer) => this.summary(scene, peer, name)));
    if (figures.length === 0) return '';
    const row = (name: string, cells: readonly string[]) =>
      (name.padEnd(NAME_WIDTH) + cells.map((cell) => cell.padStart(CELL_WIDTH)).join('')).trimEnd();
    const lines = peers.map((peer) => {
      const cells = figures.map(({ name, digits }) => cell(this.summary(scene, peer, name), digits));
      return row(peer, cells);
    });
    return [
      `${title}: ${describe(scene)}`,
      row(
        'peer',
        figures.map(({ name, unit }) => `${name} ${unit}`),
      ),
      ...lines,
    ].join('\n');
  }
}

/** Median, spread, and the ratio to the anchor. */
function cell(summary: Summary | undefined, digits: number): string {
  if (!summary) return '-';
  const ratio = summary.ratio === undefined ? '' : `${summary.ratio.toFixed(summary.ratio < 0.1 ? 3 : 2)}x`;
  return `${summary.median.toFixed(digits)} ${summary.spread.padStart(6)} ${ratio.padStart(7)}`;
}

/**
 * The chart of the end-to-end bench: SVG 1.1, a panel for each of four figures, a row for each peer. Scales are
 * logarithmic, since what is compared are ratios; so there are dots and no bars, which would begin nowhere.
 */
import type { Report, Summary } from './report.js';
import { describe, type Scene } from './scene.js';

interface Panel {
  readonly title: string;
  /** Name of the figure that the filled dot shows. */
  readonly figure: string;
  /** Another one in the same unit: a hollow dot. */
  readonly beside?: string;
  readonly digits: number;
}

const panels: readonly Panel[] = [
  { title: 'TCP, one stream, Gbit/s: more is better', figure: 'tcp1', digits: 2 },
  { title: 'CPU seconds a Gbit, both hosts: less is better', figure: 'cpu', digits: 3 },
  { title: '64-byte datagrams at ≤ 0.5 % loss, thousand/s: more is better', figure: 'rate64', digits: 0 },
  { title: 'Round trip, µs, median ● and 99 % ○: less is better', figure: 'p50', beside: 'p99', digits: 0 },
];

// Pixels.
const WIDTH = 920;
const COLUMNS = 2;
const MARGIN = 16;
const HEAD = 30;
const TITLE = 30;
const ROW = 20;
const AXIS = 26;
const NAMES = 108;
const VALUES = 52;
const DOT = 4.5;
const PANEL = (WIDTH - MARGIN * (COLUMNS + 1)) / COLUMNS;
/** What is left and right of the outermost dots, as a factor. */
const AIR = 1.25;
/** With more decades than this, 2 and 5 of each would crowd the axis. */
const FINE_DECADES_MAX = 1.6;

const STYLE = `
  .ground { fill: #ffffff } text { fill: #24292f; font: 12px system-ui, sans-serif }
  .head { font-weight: 600; font-size: 14px } .title { font-weight: 600 } .faint { fill: #6e7781; font-size: 11px }
  .grid { stroke: #d8dee4 } .range { stroke-width: 2; stroke-opacity: .45 }
  .other { fill: #8c959f; stroke: #8c959f } .anchor { fill: #24292f; stroke: #24292f }
  .own { fill: #0969da; stroke: #0969da } text.own { stroke: none; font-weight: 600 } .hollow { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    .ground, .hollow { fill: #0d1117 } text { fill: #e6edf3 } .faint { fill: #8d96a0 } .grid { stroke: #30363d }
    .anchor { fill: #e6edf3; stroke: #e6edf3 } .own { fill: #4493f8; stroke: #4493f8 }
  }`;

/** Draws what the report has of one scene; a panel without a single figure is left out. @param anchor named darker */
export function chart(report: Report, scene: Scene, anchor: string): string {
  const peers = report.peers(scene);
  const shown = panels.filter(({ figure }) => peers.some((peer) => report.summary(scene, peer, figure)));
  const height = TITLE + peers.length * ROW + AXIS;
  const rows = Math.ceil(shown.length / COLUMNS);
  const total = HEAD + MARGIN + rows * (height + MARGIN);
  const body = shown.map((panel, i) => {
    const x = MARGIN + (i % COLUMNS) * (PANEL + MARGIN);
    const y = HEAD + MARGIN + Math.floor(i / COLUMNS) * (height + MARGIN);
    return `<g transform="translate(${x} ${y})">\n${draw(panel, report, scene, anchor)}\n</g>`;
  });
  const head = `overlayd end to end: ${describe(scene)}`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${total}" width="${WIDTH}" height="${total}" role="img">`,
    `<title>${escaped(head)}</title>`,
    `<style>${STYLE}\n</style>`,
    `<rect class="ground" width="${WIDTH}" height="${total}" rx="6"/>`,
    text(MARGIN, HEAD, head, 'head'),
    ...body,
    '</svg>\n',
  ].join('\n');
}

function draw(panel: Panel, report: Report, scene: Scene, anchor: string): string {
  const peers = report.peers(scene);
  const of = (peer: string, figure: string | undefined) =>
    figure === undefined ? undefined : report.summary(scene, peer, figure);
  const all = peers.flatMap((peer) => [of(peer, panel.figure), of(peer, panel.beside)]);
  const scale = new LogScale(
    all.filter((summary) => summary !== undefined),
    NAMES,
    PANEL - VALUES,
  );
  const bottom = TITLE + peers.length * ROW;
  const grid = scale.ticks.map((value) => {
    const x = scale.at(value);
    return `${line(x, TITLE - 6, x, bottom, 'grid')}${text(x, bottom + 15, `${value}`, 'faint', 'middle')}`;
  });
  const rows = peers.map((peer, i) => {
    const y = TITLE + i * ROW + ROW / 2;
    const kind = peer.startsWith('overlayd') ? 'own' : peer === anchor ? 'anchor' : 'other';
    const [first, second] = [of(peer, panel.figure), of(peer, panel.beside)];
    const value = first ? first.median.toFixed(panel.digits) : 'none';
    return [
      text(NAMES - 10, y + 4, peer, kind === 'own' ? 'own' : '', 'end'),
      second ? mark(second, y, scale, `${kind} hollow`) : '',
      first ? mark(first, y, scale, kind) : '',
      text(PANEL, y + 4, value, kind === 'own' ? 'own' : '', 'end'),
    ].join('');
  });
  return [text(0, 12, panel.title, 'title'), ...grid, ...rows].join('\n');
}

/** A dot at the median, on a line from the least to the most. */
function mark({ median, least, most }: Summary, y: number, scale: LogScale, kind: string): string {
  const range = line(scale.at(least), y, scale.at(most), y, `${kind} range`);
  return `${range}<circle class="${kind}" cx="${scale.at(median).toFixed(1)}" cy="${y}" r="${DOT}"/>`;
}

class LogScale {
  readonly #low: number;
  readonly #high: number;
  readonly #from: number;
  readonly #to: number;

  /** @param from place of the lowest value @param to of the highest */
  constructor(summaries: readonly Summary[], from: number, to: number) {
    // What is not above 0 has no place on such a scale; it is put at the lowest one.
    const values = summaries.flatMap(({ least, most }) => [least, most]).filter((value) => value > 0);
    this.#low = Math.log10(Math.min(...values) / AIR);
    this.#high = Math.log10(Math.max(...values) * AIR);
    this.#from = from;
    this.#to = to;
  }

  at(value: number): number {
    const part = (Math.log10(value) - this.#low) / (this.#high - this.#low);
    return this.#from + Math.max(0, part) * (this.#to - this.#from);
  }

  /** Round numbers within. */
  get ticks(): number[] {
    const steps = this.#high - this.#low > FINE_DECADES_MAX ? [1] : [1, 2, 5];
    const ticks: number[] = [];
    for (let decade = Math.floor(this.#low); decade <= this.#high; decade++) {
      // By way of text: 10 ** -3 * 5 is no round number in binary.
      ticks.push(...steps.map((step) => Number(`${step}e${decade}`)));
    }
    return ticks.filter((value) => Math.log10(value) >= this.#low && Math.log10(value) <= this.#high);
  }
}

function line(x1: number, y1: number, x2: number, y2: number, kind: string): string {
  return `<line class="${kind}" x1="${x1.toFixed(1)}" y1="${y1}" x2="${x2.toFixed(1)}" y2="${y2}"/>`;
}

function text(x: number, y: number, words: string, kind: string, anchor = 'start'): string {
  return `<text class="${kind}" x="${x.toFixed(1)}" y="${y}" text-anchor="${anchor}">${escaped(words)}</text>`;
}

function escaped(words: string): string {
  return words.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}

/** `show-overlay -t`: target caches, which may be long, page by page. */
import type { ControlClient } from '../control/client.js';
import type { OverlayView, TargetJson, TargetsPage } from '../control/view.js';
import { OverlayError } from '../errors.js';
import { print, write } from './output.js';
import { type ShowOptions, unset } from './show.js';
import { type Column, chooseColumns, formatParsable, Table } from './table.js';

/** Rows by which the widths of the columns are chosen. */
const PAGE_ROWS = 500;

type Row = TargetJson & { readonly link: string };
const columns: Column<Row>[] = [
  { name: 'LINK', width: 20, value: ({ link }) => link },
  { name: 'TARGET', width: 18, value: ({ target }) => shortMac(target) },
  { name: 'DESTINATION', width: 42, value: ({ destination }) => destination ?? unset },
  { name: 'STATE', width: 9, value: ({ state }) => state },
  { name: 'AGE', width: 8, value: ({ age }) => `${age}` },
  { name: 'SOURCE', width: 9, value: ({ source }) => source },
  { name: 'FRAMES', width: 12, value: ({ frames }) => `${frames}` },
  { name: 'BYTES', width: 14, value: ({ bytes }) => `${bytes}` },
  { name: 'PMTU', width: 6, value: () => unset },
  { name: 'LASTUSE', width: 25, value: ({ last_use }) => last_use ?? unset },
];
/** LINK, TARGET, DESTINATION: those of dladm. */
const SHOWN = 3;

/** Octets without leading zeros, as dladm prints them. */
export function shortMac(mac: string): string {
  return mac.replace(/\b0(?=[0-9a-f]\b)/g, '');
}

/** Prints the targets of the devices, all when none is named. Returns what is to be said of those that are not there. */
export async function showTargets(
  client: ControlClient,
  names: readonly string[],
  options: ShowOptions,
): Promise<OverlayError[]> {
  const chosen = chooseColumns(columns, options.output, SHOWN);
  const table = new Table(chosen);
  const printRows = (some: readonly Row[]) =>
    print(options.parsable ? formatParsable(chosen, some) : table.next(some));
  let rows: Row[] = [];
  let isFirst = true;
  const failures = await eachDevice(client, names, async (link) => {
    for await (const targets of pages(client, link)) {
      rows.push(...targets.map((target) => ({ link, ...target })));
      if (rows.length < PAGE_ROWS) continue;
      await printRows(rows);
      isFirst = false;
      rows = [];
    }
  });
  if (isFirst || rows.length > 0) await printRows(rows);
  return failures;
}

/** The same as one JSON document: what `show-overlay --json` prints, with every target. */
export async function showTargetsJson(
  client: ControlClient,
  names: readonly string[],
): Promise<OverlayError[]> {
  await write('{"version":1,"overlays":{');
  let separator = '';
  const failures = await eachDevice(client, names, async (link) => {
    const answer = await client.get<{ overlays: Record<string, OverlayView> }>(pathOf(link));
    const { targets: _, targets_more: __, ...view } = answer.overlays[link]!;
    const head = JSON.stringify({ ...view, targets_more: false }).slice(0, -1);
    await write(`${separator}\n${JSON.stringify(link)}:${head},"targets":[`);
    separator = ',';
    let between = '';
    try {
      for await (const targets of pages(client, link)) {
        if (targets.length === 0) continue;
        await write(between + targets.map((target) => `\n${JSON.stringify(target)}`).join(','));
        between = ',';
      }
    } finally {
      // The document is whole also when the device goes meanwhile.
      await write(']}');
    }
  });
  await write('}}\n');
  return failures;
}

/** Does the work for each device that is named, or for all; collects what is to be said of those that are not there. */
async function eachDevice(
  client: ControlClient,
  names: readonly string[],
  work: (name: string) => Promise<void>,
): Promise<OverlayError[]> {
  const failures: OverlayError[] = [];
  for (const name of names.length > 0 ? names : await allNames(client)) {
    try {
      await work(name);
    } catch (error) {
      if (!(error instanceof OverlayError) || error.errno !== 'ENOENT') throw error;
      // One that has just been deleted was not asked for by name.
      if (names.length > 0) failures.push(error);
    }
  }
  return failures;
}

async function allNames(client: ControlClient): Promise<string[]> {
  return Object.keys((await client.get<{ overlays: object }>('/v1/overlays')).overlays);
}

async function* pages(client: ControlClient, name: string): AsyncGenerator<readonly TargetJson[]> {
  let marker: string | null = '0:0:0:0:0:0';
  while (marker !== null) {
    let page: TargetsPage;
    try {
      page = await client.get<TargetsPage>(`${pathOf(name)}/targets?marker=${marker}`);
    } catch (error) {
      // Nothing is associated yet: it has no targets.
      if (error instanceof OverlayError && error.errno === 'ENXIO') return;
      throw error;
    }
    yield page.targets;
    marker = page.next;
  }
}

function pathOf(name: string): string {
  return `/v1/overlays/${encodeURIComponent(name)}`;
}

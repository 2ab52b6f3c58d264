/** `show-overlay -t`: target caches, which may be long, page by page. */
import type { ControlClient } from '../control/client.js';
import type { OverlayView, TargetJson, TargetsPage } from '../control/view.js';
import { OverlayError } from '../errors.js';
import { print, write } from './output.js';
import { allNames } from './pages.js';
import { shortMac, shortMacs } from './short-mac.js';
import type { ShowOptions } from './show.js';
import { type Column, chooseColumns, formatParsable, Table, unset } from './table.js';

/** Rows by which the widths of the columns are chosen. */
const PAGE_ROWS = 500;

interface Row {
  readonly link: string;
  /** Undefined when this user may not read it. */
  readonly target: TargetJson | undefined;
}

function column(name: string, width: number, value: (target: TargetJson) => string): Column<Row> {
  return { name, width, value: ({ target }) => (target ? value(target) : unset) };
}

const columns: Column<Row>[] = [
  { name: 'LINK', width: 20, value: ({ link }) => link },
  column('TARGET', 18, ({ target }) => shortMac(target)),
  column('DESTINATION', 42, ({ destination }) => shortMacs(destination ?? unset)),
  column('STATE', 9, ({ state }) => state),
  column('AGE', 8, ({ age }) => `${age}`),
  column('SOURCE', 9, ({ source }) => source),
  column('FRAMES', 12, ({ frames }) => `${frames}`),
  column('BYTES', 14, ({ bytes }) => `${bytes}`),
  column('PMTU', 6, ({ path_mtu }) => (path_mtu === null ? unset : `${path_mtu}`)),
  column('PROBE', 10, ({ path_probe }) => path_probe ?? unset),
  column('LASTUSE', 25, ({ last_use }) => last_use ?? unset),
];
/** LINK, TARGET, DESTINATION: those of dladm. */
const SHOWN = 3;

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
      rows.push(...(targets ?? [undefined]).map((target) => ({ link, target })));
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
        if (!targets || targets.length === 0) continue;
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

/** Undefined in place of targets that this user may not read. */
async function* pages(
  client: ControlClient,
  name: string,
): AsyncGenerator<readonly TargetJson[] | undefined> {
  let marker: string | null = '0:0:0:0:0:0';
  while (marker !== null) {
    let page: TargetsPage;
    try {
      page = await client.get<TargetsPage>(`${pathOf(name)}/targets?marker=${marker}`);
    } catch (error) {
      // Nothing is associated yet: it has no targets.
      if (error instanceof OverlayError && error.errno === 'ENXIO') return;
      if (!(error instanceof OverlayError) || error.code !== 'not_permitted') throw error;
      yield undefined;
      return;
    }
    yield page.targets;
    marker = page.next;
  }
}

function pathOf(name: string): string {
  return `/v1/overlays/${encodeURIComponent(name)}`;
}

/** The commands of `overlayadm`: dladm's verbs. They only call the control API. */
import { Command, InvalidArgumentError } from 'commander';
import { ControlClient, DEFAULT_SOCKET } from '../control/client.js';
import type { OverlayView } from '../control/view.js';
import { OverlayError } from '../errors.js';
import { type EventsOptions, showEvents } from './events.js';
import { DEGRADED, exitCodeOf, exitCodes, USAGE } from './exit-code.js';
import { type ModifyOptions, modifyOverlay, parseEntry, parseTarget } from './modify.js';
import { print, printable } from './output.js';
import { allStats, type OverlaysPage, wholeStatus } from './pages.js';
import { type ShowOptions, showOverlays, showStats } from './show.js';
import { showTargets, showTargetsJson } from './show-targets.js';
import { showStatus } from './status.js';
import { addVnicCommands } from './vnic.js';

type Properties = Readonly<Record<string, string>>;
type Json = { json?: boolean };

/** `prop=value[,prop=value...]`, may be given several times. */
function addProperties(text: string, before: Properties = {}): Properties {
  const properties = new Map(Object.entries(before));
  for (const part of text.split(',')) {
    const at = part.indexOf('=');
    if (at < 1 || at === part.length - 1) throw new InvalidArgumentError(`'${part}' is not prop=value.`);
    const name = part.slice(0, at);
    if (properties.has(name)) throw new InvalidArgumentError(`'${name}' is given twice.`);
    properties.set(name, part.slice(at + 1));
  }
  return Object.fromEntries(properties);
}

function codesText(): string {
  return Object.entries(exitCodes)
    .map(([code, meaning]) => `${code} ${meaning}`)
    .join('; ');
}

const program = new Command('overlayadm')
  .description('administers overlay devices')
  .option(
    '-S, --socket <path>',
    'control socket of the daemon',
    process.env.OVERLAYD_SOCKET ?? DEFAULT_SOCKET,
  )
  .configureHelp({ showGlobalOptions: true })
  .addHelpText('after', `\nExit codes: ${codesText()}`)
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : USAGE));

function parseEventNumber(text: string): string {
  if (/^\d{1,15}$/.test(text)) return text;
  throw new InvalidArgumentError(`'${text}' is not the number of an event.`);
}

function client(): ControlClient {
  return new ControlClient(program.opts<{ socket: string }>().socket);
}

program
  .command('create-overlay')
  .description('create an overlay device, set its properties and activate it')
  .requiredOption('-e, --encap <plugin>', 'encap plugin: vxlan or geneve')
  .requiredOption('-s, --search <plugin>', 'lookup plugin: direct, files or external')
  .requiredOption('-v, --vnetid <id>', 'virtual network id')
  .option('-t, --temporary', 'gone with the daemon, together with its link')
  .option('-p, --prop <prop=value,...>', 'properties, such as vxlan/listen_ip=192.0.2.1', addProperties)
  .option('--json', 'print a JSON document')
  .argument('<name>', 'name of the device and its link')
  .action(
    async (
      name: string,
      flags: Json & {
        encap: string;
        search: string;
        vnetid: string;
        prop?: Properties;
        temporary?: boolean;
      },
    ) => {
      const { encap, search, vnetid, prop = {}, temporary = false } = flags;
      const answer = await client().post('/v1/overlays', {
        name,
        encap,
        search,
        vnetid,
        properties: prop,
        temporary,
      });
      if (flags.json) await print([JSON.stringify(answer)]);
    },
  );

program
  .command('set-prop')
  .description('set properties of an overlay device, one after the other, also of an activated one')
  .requiredOption('-p, --prop <prop=value,...>', 'properties, such as vnetid=43', addProperties)
  .option('--json', 'print a JSON document')
  .argument('<name>', 'name of the device')
  .action(async (name: string, flags: Json & { prop: Properties }) => {
    let answer: unknown;
    for (const [property, value] of Object.entries(flags.prop)) {
      const path = `/v1/overlays/${encodeURIComponent(name)}/properties/${encodeURIComponent(property)}`;
      answer = await client().put(path, { value });
    }
    if (flags.json) await print([JSON.stringify(answer)]);
  });

program
  .command('delete-overlay')
  .description('delete an overlay device and its link')
  .option('-f, --force', 'even while the link is up or carries other links')
  .option('--json', 'print a JSON document')
  .argument('<name>', 'name of the device')
  .action(async (name: string, flags: Json & { force?: boolean }) => {
    const force = flags.force ? '?force=true' : '';
    const answer = await client().delete(`/v1/overlays/${encodeURIComponent(name)}${force}`);
    if (flags.json) await print([JSON.stringify(answer)]);
  });

program
  .command('tidy')
  .description('delete the links that an overlayd left and that no record knows')
  .option('-f, --force', 'also those that are up')
  .option('--json', 'print a JSON document')
  .action(async (flags: Json & { force?: boolean }) => {
    type Left = { link: string; netns: string };
    const { force = false } = flags;
    const answer = await client().post<{ deleted: Left[]; left: Left[] }>('/v1/tidy', { force });
    const placeOf = ({ link, netns }: Left) => (netns === '' ? link : `${link} in ${netns}`);
    const lines = [
      ...answer.deleted.map((link) => `deleted ${placeOf(link)}`),
      ...answer.left.map((link) => `left ${placeOf(link)}: it is up; take it down, or use --force`),
    ];
    await print(flags.json ? [JSON.stringify(answer)] : lines.map(printable));
  });

const modify = program
  .command('modify-overlay')
  .description('set, delete or flush entries of the target cache of an overlay device')
  .option(
    '-s, --set-entry <mac=dest>',
    'send frames for the MAC address there: ip:port, [ipv6]:port, or drop',
    parseEntry,
  )
  .option('-d, --delete-entry <mac>', 'forget the entry; the next frame is looked up again', parseTarget)
  .option('-f, --flush-table', 'forget all entries')
  .option('--json', 'print a JSON document')
  .argument('<name>', 'name of the device')
  .action(async (name: string, flags: Json & ModifyOptions) => {
    const answer = await modifyOverlay(client(), name, flags);
    if (flags.json) await print([JSON.stringify(answer)]);
  });
let flushes = 0;
modify.on('option:flush-table', () => {
  flushes++;
  if (flushes > 1) modify.error("error: option '-f, --flush-table' is given twice");
});

program
  .command('show-overlay')
  .description('show properties (default), fault state, targets or offloads of overlay devices')
  .option('-f, --fma', 'fault state')
  .option(
    '--offloads',
    'what each offload has come to: used, off, refused by the kernel, or down for a while',
  )
  .option('-t, --target', 'where frames are sent: the target cache')
  .option('-p, --parsable', "fields divided by ':', without a header; needs -o")
  .option('-o, --output <columns>', 'columns, divided by commas, or all')
  .option('--json', 'print a JSON document')
  .argument('[names...]', 'devices; all when none is named')
  .action(async (names: string[], flags: Json & ShowOptions) => {
    checkShow(flags);
    const failures = await (flags.target
      ? flags.json
        ? showTargetsJson(client(), names)
        : showTargets(client(), names, flags)
      : show(names, flags));
    for (const { message } of failures) console.error(`overlayadm: ${message}`);
    if (failures[0]) process.exitCode = exitCodeOf(failures[0]);
  });

/** As dladm: those that are there are shown; returns what is to be said of those that are not. */
async function show(names: readonly string[], flags: Json & ShowOptions): Promise<OverlayError[]> {
  const overlays: [name: string, view: OverlayView][] = [];
  const failures: OverlayError[] = [];
  const paths =
    names.length > 0 ? names.map((name) => `/v1/overlays/${encodeURIComponent(name)}`) : ['/v1/overlays'];
  for (const path of paths) {
    try {
      for await (const page of client().pages<OverlaysPage>(path)) {
        overlays.push(...Object.entries(page.overlays));
      }
    } catch (error) {
      if (!(error instanceof OverlayError) || error.errno !== 'ENOENT') throw error;
      failures.push(error);
    }
  }
  const document = { version: 1, overlays: Object.fromEntries(overlays) };
  await print(flags.json ? [JSON.stringify(document, null, 2)] : showOverlays(overlays, flags));
  return failures;
}

addVnicCommands(program, client);

program
  .command('show-stats')
  .description('show the counters and drops of devices, underlay addresses and workers')
  .option('-p, --parsable', "fields divided by ':', without a header; needs -o")
  .option('-o, --output <columns>', 'columns, divided by commas, or all')
  .option('--json', 'print a JSON document')
  .action(async (flags: Json & ShowOptions) => {
    checkShow(flags);
    const stats = await allStats(client());
    await print(flags.json ? [JSON.stringify(stats, null, 2)] : showStats(stats, flags));
  });

program
  .command('status')
  .description('show whether all is well, what is not, and what there is')
  .option('--check', 'exit with 1 when anything is degraded, for monitoring')
  .option('--json', 'print a JSON document')
  .action(async (flags: Json & { check?: boolean }) => {
    const status = await wholeStatus(client());
    await print(flags.json ? [JSON.stringify(status, null, 2)] : showStatus(status));
    if (flags.check && status.status !== 'ONLINE') process.exitCode = DEGRADED;
  });

program
  .command('events')
  .description('show what has happened: time, device, kind and text')
  .option('-f, --follow', 'go on with what happens from now on, until the daemon goes')
  .option('--since <seq>', 'only events behind that number', parseEventNumber)
  .option('--json', 'print a JSON document for each')
  .action((flags: EventsOptions) => showEvents(client(), flags));

program
  .command('create-plugin')
  .description('write the skeleton of a lookup plugin, with a test')
  .option('--json', 'print a JSON document')
  .argument('<name>', 'name of the plugin')
  .argument('[directory]', 'where to write it (default: a directory of that name here)')
  .action(async (name: string, directory: string | undefined, flags: Json) => {
    const { createPlugin } = await import('./scaffold.js');
    const files = createPlugin(name, directory ?? name);
    await print(flags.json ? [JSON.stringify({ version: 1, files })] : files);
  });

function checkShow(flags: ShowOptions): void {
  const kinds = [flags.fma && '-f', flags.target && '-t', flags.offloads && '--offloads'].filter(Boolean);
  if (kinds.length > 1)
    throw new OverlayError('EINVAL', 'usage', `${kinds.join(' and ')} exclude each other`);
  if (flags.parsable && flags.output === undefined) {
    throw new OverlayError('EINVAL', 'usage', '-p needs -o with the columns to print');
  }
}

try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof OverlayError)) throw error;
  console.error(`overlayadm: ${error.message}`);
  for (const part of error.parts) console.error(`  ${part}`);
  process.exitCode = exitCodeOf(error);
}

/** `create-vnic`, `delete-vnic` and `show-vnic`. */
import type { Command } from 'commander';
import type { ControlClient } from '../control/client.js';
import type { VnicView } from '../control/view.js';
import { OverlayError } from '../errors.js';
import { exitCodeOf } from './exit-code.js';
import { print } from './output.js';
import { shortMac } from './short-mac.js';
import type { ShowOptions } from './show.js';
import { type Column, chooseColumns, formatParsable, formatTable, unset } from './table.js';

type Json = { json?: boolean };
type ShowVnicOptions = Json & Pick<ShowOptions, 'parsable' | 'output'> & { link?: string };

const columns: Column<VnicView>[] = [
  { name: 'LINK', width: 15, value: ({ name }) => name },
  { name: 'OVER', width: 15, value: ({ over }) => over },
  // An overlay has no rate of its own: dladm shows 0 as well. The kernel states 10 Gbit/s for any TAP.
  { name: 'SPEED', width: 7, value: () => '0' },
  { name: 'MACADDRESS', width: 18, value: ({ mac }) => shortMac(mac) },
  { name: 'MACADDRTYPE', width: 12, value: ({ mac_type }) => mac_type ?? unset },
  // A VNIC takes frames with any tag, and sets none.
  { name: 'VID', width: 5, value: () => '0' },
  { name: 'NETNS', width: 10, value: namespaceText },
  { name: 'MTU', width: 6, value: ({ mtu }) => `${mtu}` },
  { name: 'STATE', width: 6, value: ({ up }) => (up ? 'up' : 'down') },
];
/** LINK to NETNS: those of dladm, and the zone. */
const SHOWN = 7;

/** Adds the commands to the program. */
export function addVnicCommands(program: Command, client: () => ControlClient): void {
  program
    .command('create-vnic')
    .description('create a VNIC, a link with an address of its own, on an overlay device')
    .requiredOption('-l, --link <overlay>', 'the overlay device')
    .option('-m, --mac-address <address>', 'a MAC address, or random', 'random')
    .option('-n, --netns <name>', 'network namespace (/run/netns) to put it into')
    .option('--json', 'print a JSON document')
    .argument('<name>', 'name of the link')
    .action(async (name: string, flags: Json & { link: string; macAddress: string; netns?: string }) => {
      const { link: overlay, macAddress, netns } = flags;
      const mac = macAddress === 'random' || macAddress === 'auto' ? undefined : macAddress;
      const answer = await client().post<{ link_taken_up: boolean }>('/v1/vnics', {
        name,
        overlay,
        mac,
        netns,
      });
      if (flags.json) await print([JSON.stringify(answer)]);
      else if (answer.link_taken_up) await print([`${overlay} was down and has been taken up`]);
    });

  program
    .command('delete-vnic')
    .description('delete a VNIC')
    .option('-n, --netns <name>', 'network namespace it is in, where several have one of that name')
    .option('--json', 'print a JSON document')
    .argument('<name>', 'name of the VNIC')
    .action(async (name: string, flags: Json & { netns?: string }) => {
      const { netns } = flags;
      const query = netns === undefined ? '' : `?netns=${encodeURIComponent(netns)}`;
      const answer = await client().delete(`/v1/vnics/${encodeURIComponent(name)}${query}`);
      if (flags.json) await print([JSON.stringify(answer)]);
    });

  program
    .command('show-vnic')
    .description('show VNICs, in whatever network namespace they are')
    .option('-l, --link <overlay>', 'those of one overlay device')
    .option('-p, --parsable', "fields divided by ':', without a header; needs -o")
    .option('-o, --output <columns>', 'columns, divided by commas, or all')
    .option('--json', 'print a JSON document')
    .argument('[names...]', 'VNICs; all when none is named')
    .action(async (names: string[], flags: ShowVnicOptions) => {
      if (flags.parsable && flags.output === undefined) {
        throw new OverlayError('EINVAL', 'usage', '-p needs -o with the columns to print');
      }
      const query = flags.link === undefined ? '' : `?overlay=${encodeURIComponent(flags.link)}`;
      const answer = await client().get<{ vnics: VnicView[] }>(`/v1/vnics${query}`);
      const vnics =
        names.length === 0 ? answer.vnics : answer.vnics.filter(({ name }) => names.includes(name));
      await print(flags.json ? [JSON.stringify({ version: 1, vnics }, null, 2)] : showVnics(vnics, flags));
      // As dladm: those that are there are shown.
      for (const name of names.filter((each) => !vnics.some((vnic) => vnic.name === each))) {
        const error = new OverlayError('ENOENT', 'no_such_vnic', `there is no VNIC '${name}'`);
        console.error(`overlayadm: ${error.message}`);
        process.exitCode = exitCodeOf(error);
      }
    });
}

/** Lines of `show-vnic`. Throws EINVAL for an unknown column. */
export function showVnics(
  vnics: readonly VnicView[],
  { parsable, output }: Pick<ShowOptions, 'parsable' | 'output'>,
): string[] {
  const chosen = chooseColumns(columns, output, SHOWN);
  return parsable ? formatParsable(chosen, vnics) : formatTable(chosen, vnics);
}

function namespaceText({ netns, netns_there }: VnicView): string {
  if (netns_there) return netns ?? unset;
  return netns === null ? '(no name)' : `${netns} (gone)`;
}

/** The two hosts as a drawing. */
import { DEVICE, type Pair, VNETID } from './pair.js';

const BOX_CHARACTERS = 28;

/** Lines of the drawing; `wire` says what the underlay is. */
export function picture(
  pair: Pick<Pair, 'a' | 'b' | 'port'>,
  what: string,
  daemon: string,
  link: string,
  wire: string,
): string[] {
  const { a, b } = pair;
  const box = (text: string) => `| ${text.padEnd(BOX_CHARACTERS - 4)} |`;
  const edge = `+${'-'.repeat(BOX_CHARACTERS - 2)}+`;
  const line = (left: string, middle: string, right: string) =>
    `  ${left}${middle.padStart(10).padEnd(20)}${right}`;
  const centre = (text: string, fill = ' ') => {
    const before = Math.floor((20 - text.length) / 2);
    return fill.repeat(before) + text + fill.repeat(20 - text.length - before);
  };
  const plain = (text: string) => text.padEnd(BOX_CHARACTERS);
  return [
    line(plain(`host a: ${what}`), '', `host b: ${what}`),
    line(edge, '', edge),
    line(box(`${DEVICE}  ${a.innerIp}/24`), centre(' overlay ', '.'), box(`${DEVICE}  ${b.innerIp}/24`)),
    line(box('    |'), centre(`vnetid ${VNETID}`), box('    |')),
    line(box(daemon), centre(''), box(daemon)),
    line(box('    |'), centre(`UDP port ${pair.port}`), box('    |')),
    line(box(`${link} ${a.underlayIp}`), centre(` ${wire} `, '='), box(`${link} ${b.underlayIp}`)),
    line(edge, '', edge),
  ];
}

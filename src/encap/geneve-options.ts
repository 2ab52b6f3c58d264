/**
 * Options of a Geneve header (RFC 8926 section 3.5) as text and as bytes. Text is one option or several with `+` between them,
 * each `CLASS:TYPE:DATA` in hexadecimal: 16 bits, 8 bits, and up to 124 bytes in whole words, which may be empty:
 * `0102:80:0a0b0c0d+0103:1:`.
 */

/** Bytes of all options together: 63 words. */
export const OPTIONS_BYTES_MAX = 252;
/** As text: each takes a word at least, and has at most three digits more than its bytes have. */
export const OPTIONS_TEXT_BYTES_MAX = 1024;
const OPTION_BYTES = 4;
const DATA_BYTES_MAX = 124;
const WORD_BYTES = 4;
/** Type: whoever does not understand the option must drop the packet. */
const CRITICAL = 0x80;

/** What is wrong with the text, or undefined: the end of a sentence. */
export function optionsFault(text: string): string | undefined {
  const parsed = parseOptions(text);
  return typeof parsed === 'string' ? parsed : undefined;
}

/** Bytes of options as they are sent, and whether one is critical. Text without a fault (`optionsFault`). */
export function optionsBytes(text: string): { readonly bytes: Uint8Array; readonly isCritical: boolean } {
  const parsed = parseOptions(text);
  return typeof parsed === 'string' ? { bytes: new Uint8Array(0), isCritical: false } : parsed;
}

function parseOptions(text: string): { bytes: Uint8Array; isCritical: boolean } | string {
  const bytes: number[] = [];
  let isCritical = false;
  for (const [index, option] of text.split('+').entries()) {
    const match = /^([0-9a-f]{1,4}):([0-9a-f]{1,2}):((?:[0-9a-f]{2})*)$/i.exec(option);
    if (!match) return `option ${index + 1} is not CLASS:TYPE:DATA in hexadecimal, such as 0102:80:0a0b0c0d`;
    const [, classText, typeText, dataText] = match;
    const [kind, type] = [Number.parseInt(classText!, 16), Number.parseInt(typeText!, 16)];
    const data = Buffer.from(dataText!, 'hex');
    if (data.length % WORD_BYTES !== 0)
      return `the data of option ${index + 1} has ${data.length} bytes, and it must be whole words of 4`;
    if (data.length > DATA_BYTES_MAX)
      return `the data of option ${index + 1} has ${data.length} bytes, and ${DATA_BYTES_MAX} is the most`;
    bytes.push(kind >> 8, kind & 0xff, type, data.length / WORD_BYTES, ...data);
    isCritical ||= (type & CRITICAL) !== 0;
  }
  if (bytes.length > OPTIONS_BYTES_MAX)
    return `the options have ${bytes.length} bytes, with ${OPTION_BYTES} for each, and ${OPTIONS_BYTES_MAX} is the most`;
  return { bytes: Uint8Array.from(bytes), isCritical };
}

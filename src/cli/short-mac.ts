/** MAC addresses as dladm prints them. */

/** Octets without leading zeros: 2:8:20:1:2:3. */
export function shortMac(mac: string): string {
  return mac.replace(/\b0(?=[0-9a-f]\b)/g, '');
}

/** The same for those in a destination, or in a list of destinations; what is no MAC address stays. */
export function shortMacs(text: string): string {
  return text.replace(/(?<![0-9a-f:])(?:[0-9a-f]{2}:){5}[0-9a-f]{2}(?![0-9a-f:])/g, shortMac);
}

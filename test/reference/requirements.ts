/**
 * What the RFCs of the outer headers ask of a tunnel endpoint, and which test shows it, or why it is otherwise here.
 * `test/requirements.ts` looks whether the tests are there and whether anything was left out.
 */
import { rfc6040 } from './requirements/ecn.js';
import { rfc8926 } from './requirements/geneve.js';
import { rfc2784, rfc2890, rfc7637 } from './requirements/nvgre.js';
import { rfc1122, rfc1191, rfc4443, rfc6438, rfc8201, rfc9293 } from './requirements/path-mtu.js';
import { rfc8899 } from './requirements/probing.js';
import type { Rfc } from './requirements/rfc.js';
import { rfc7348 } from './requirements/vxlan.js';
import { rfc6935, rfc6936 } from './requirements/zero-checksum.js';

export const rfcs: readonly Rfc[] = [
  rfc7348,
  rfc8926,
  rfc7637,
  rfc2784,
  rfc2890,
  rfc6040,
  rfc6935,
  rfc6936,
  rfc6438,
  rfc1191,
  rfc8201,
  rfc8899,
  rfc1122,
  rfc4443,
  rfc9293,
];

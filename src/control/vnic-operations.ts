/** The control operations on VNICs: rows of the table in `operations.ts`. */
import { z } from 'zod';
import type { Overlay } from '../overlay.js';
import { API_VERSION } from './view.js';
import { vnicView } from './vnic-view.js';

const name = z.string().max(256);
const netns = z.string().max(256);
const vnicsOf = z.strictObject({ overlay: name.optional() });
const created = z.strictObject({
  name,
  overlay: name,
  mac: z.string().max(64).optional(),
  netns: netns.optional(),
});
const named = z.strictObject({ name, netns: netns.optional() });

export const vnicOperations = [
  {
    name: 'vnics',
    method: 'GET',
    path: '/v1/vnics',
    needs: 'read',
    input: vnicsOf,
    run: (overlay: Overlay, input: z.infer<typeof vnicsOf>) => ({
      version: API_VERSION,
      vnics: overlay.vnics.list(input.overlay).map(vnicView),
    }),
  },
  {
    name: 'create-vnic',
    method: 'POST',
    path: '/v1/vnics',
    needs: 'write',
    input: created,
    run: async (overlay: Overlay, { name, overlay: over, mac, netns }: z.infer<typeof created>) => {
      const { vnic, hasTakenUp } = await overlay.vnics.create({
        name,
        overlay: over,
        ...(mac === undefined ? {} : { mac }),
        ...(netns === undefined ? {} : { netns }),
      });
      return { version: API_VERSION, vnic: vnicView(vnic), link_taken_up: hasTakenUp };
    },
  },
  {
    name: 'delete-vnic',
    method: 'DELETE',
    path: '/v1/vnics/:name',
    needs: 'write',
    input: named,
    run: async (overlay: Overlay, { name, netns }: z.infer<typeof named>) => {
      await overlay.vnics.delete(name, netns);
      return { version: API_VERSION };
    },
  },
] as const;

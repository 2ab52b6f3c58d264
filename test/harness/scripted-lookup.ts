/** A lookup plugin whose answers a test writes. */
import { PropertyStore } from '../../src/property.js';
import type {
  Answer,
  LookupInstance,
  LookupPlugin,
  LookupRequest,
  LookupServices,
} from '../../src/varpd/plugin.js';

export class ScriptedLookup implements LookupPlugin {
  readonly version = 1;
  readonly name = 'scripted';
  readonly mode = 'dynamic';
  /** Every request so far. */
  readonly requests: LookupRequest[] = [];
  services: LookupServices | undefined;

  /** @param answer what it says; may be changed at any time */
  constructor(
    public answer: (request: LookupRequest) => Answer | Promise<Answer>,
    readonly more: Partial<LookupInstance> = {},
  ) {}

  properties(): string[] {
    return [];
  }

  create(): LookupInstance {
    return {
      properties: new PropertyStore([]),
      start: (services) => {
        this.services = services;
      },
      stop: () => {},
      lookup: (request) => {
        this.requests.push(request);
        return this.answer(request);
      },
      ...this.more,
    };
  }
}

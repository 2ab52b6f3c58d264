/**
 * The 76 defects of illumos' overlay devices that a reading of it has numbered, and for each the test that would fail if we
 * had it, or why we cannot. In our own words; checked by `test/defects.ts`.
 */

/** Which of the three holds for a defect. */
export type Verdict =
  | {
      /** A test that fails when the defect is there; of a name made by a template, a part that is fixed. */
      readonly excludedBy: { readonly file: string; readonly test: string };
    }
  | {
      /** Why it cannot be here. */
      readonly cannotArise: string;
    }
  | {
      /** The part it would be in, which there is not yet. */
      readonly notBuilt: string;
    };

export type Defect = Verdict & {
  /** 1 to 76. */
  readonly bug: number;
  /** What goes wrong in the original. */
  readonly what: string;
};

export const defects: readonly Defect[] = [
  {
    bug: 1,
    what: 'fini is called for a device whose init failed.',
    excludedBy: {
      file: 'test/create.ts',
      test: 'create: an encap that refuses the device: its own error, and no fini for an init that failed',
    },
  },
  {
    bug: 2,
    what: 'A lock that is not held is released when the link cannot be registered.',
    cannotArise: 'No lock is taken on this path, or on any other: the main thread does one thing at a time.',
  },
  {
    bug: 3,
    what: 'The link registration leaks when the name or the vnetid is in use.',
    excludedBy: {
      file: 'test/create.ts',
      test: 'create: the checks, in order, each ahead of all that follow',
    },
  },
  {
    bug: 4,
    what: "The error of the encap plugin's init is replaced by EINVAL.",
    excludedBy: {
      file: 'test/create.ts',
      test: 'create: an encap that refuses the device: its own error, and no fini for an init that failed',
    },
  },
  {
    bug: 5,
    what: 'Delete keeps the device lock, so that it deadlocks with whatever else is asked of the device.',
    excludedBy: {
      file: 'test/defects-device.ts',
      test: 'status, reads and answers beside a delete: every one of them ends',
    },
  },
  {
    bug: 6,
    what: 'Delete never gives the link registration back.',
    excludedBy: { file: 'test/churn.ts', test: 'lives: descriptors, rows and heap are back where they were' },
  },
  {
    bug: 7,
    what: 'Deleting a degraded device leaves the module degraded for good.',
    excludedBy: {
      file: 'test/defects-device.ts',
      test: 'a degraded device that is deleted: the process is online again',
    },
  },
  {
    bug: 8,
    what: 'Delete waits without end for lookups that nobody answers.',
    excludedBy: {
      file: 'test/chaos.ts',
      test: 'a device is deleted with lookups open: it always finishes, and what they answer is of no account',
    },
  },
  {
    bug: 9,
    what: "A plugin's property is not found by name.",
    excludedBy: { file: 'test/setprop.ts', test: 'properties: order, permissions, by name and by id' },
  },
  {
    bug: 10,
    what: 'A property id equal to the count is taken for one.',
    excludedBy: { file: 'test/setprop.ts', test: 'properties: order, permissions, by name and by id' },
  },
  {
    bug: 11,
    what: 'The value of mtu has 4 bytes where its type has 8.',
    cannotArise:
      'A value is a bigint or text; it has no size in bytes that could be another than its type says.',
  },
  {
    bug: 12,
    what: "The size of encap's value leaves out the NUL that its type includes.",
    cannotArise: 'Text has no NUL and no size of its own here, inside and in JSON.',
  },
  {
    bug: 13,
    what: 'Reading a property drops the hold on the device while it is still in use.',
    cannotArise:
      'A read runs to its end in one turn of the main thread: no device can go meanwhile, and there are no holds.',
  },
  {
    bug: 14,
    what: 'A refusal with ENOTSUP keeps a hold, so that the device cannot be deleted.',
    excludedBy: {
      file: 'test/setprop.ts',
      test: 'what is fixed on an activated device: ENOTSUP, and delete works afterwards',
    },
  },
  {
    bug: 15,
    what: 'The highest vnetid can be had by create and not by setprop.',
    excludedBy: { file: 'test/setprop.ts', test: 'setprop vnetid: the range, a duplicate, its own again' },
  },
  {
    bug: 16,
    what: 'A vnetid that another device has can be set.',
    excludedBy: { file: 'test/setprop.ts', test: 'setprop vnetid: the range, a duplicate, its own again' },
  },
  {
    bug: 17,
    what: 'The caller sends 8 bytes for mtu and 4 are read, which works on little endian only.',
    cannotArise:
      'A value crosses the control API as a JSON number or as decimal digits: there is no byte order.',
  },
  {
    bug: 18,
    what: 'Transmit and cache operations take the same two locks in opposite orders.',
    cannotArise:
      'There are no locks: the main thread alone changes the cache, and workers read rows that are immutable while published.',
  },
  {
    bug: 19,
    what: 'After a failed send the link waits for a word that never comes.',
    excludedBy: {
      file: 'test/defects-device.ts',
      test: 'a send that the system refuses costs its frames by name, and the next frame goes',
    },
  },
  {
    bug: 20,
    what: 'The test for an IPv4 multicast address looks at the last octet.',
    excludedBy: {
      file: 'test/property.ts',
      test: 'vxlan/listen_ip: unicast, unspecified, loopback; bug 20 of illumos done right',
    },
  },
  {
    bug: 21,
    what: 'svp/underlay_ip cannot be read into a buffer that is large enough.',
    notBuilt: 'the lookup plugin svp',
  },
  {
    bug: 22,
    what: 'Defaults of 8-byte numbers have 2 or 4 bytes.',
    cannotArise: 'A default is a bigint, as every value of its type is.',
  },
  {
    bug: 23,
    what: 'svp/host is used before it is known whether there is memory for it.',
    notBuilt: 'the lookup plugin svp',
  },
  {
    bug: 24,
    what: 'The manual has a listen_port range that begins at 0.',
    excludedBy: {
      file: 'test/transaction.ts',
      test: 'create-overlay: every failure leaves nothing behind, with a line for each part at fault',
    },
  },
  {
    bug: 25,
    what: 'A property name that is too long makes the registration release a lock that it does not hold.',
    excludedBy: { file: 'test/plugin.ts', test: 'a property name of 64 bytes' },
  },
  {
    bug: 26,
    what: 'The lock of all muxes is kept when another encap has the address.',
    excludedBy: {
      file: 'test/start-failure.ts',
      test: 'two devices share a mux; another encap on it is refused, and gets it when it is free',
    },
  },
  {
    bug: 27,
    what: 'A drop is reported for a frame that is delivered.',
    excludedBy: {
      file: 'test/churn.ts',
      test: 'traffic both ways loses nothing while a third device comes and goes 100 times',
    },
  },
  {
    bug: 28,
    what: 'Associating again leaks a target table, and frames that it held.',
    excludedBy: {
      file: 'test/defects-device.ts',
      test: 'associated again and again, refused or not: one table, and what was held is not lost',
    },
  },
  {
    bug: 29,
    what: 'An answer to a lookup from before a flush is installed.',
    excludedBy: { file: 'test/target-model.ts', test: 'random sequences of up to' },
  },
  {
    bug: 30,
    what: 'A target that becomes valid while its lookup is queued stays pending, and its device cannot go.',
    excludedBy: { file: 'test/target-model.ts', test: 'every sequence to length' },
  },
  {
    bug: 31,
    what: 'A frame injected by name of the device keeps a hold, so that it cannot be deleted.',
    excludedBy: {
      file: 'test/defects-device.ts',
      test: 'after announcements and injections a device is deleted as ever',
    },
  },
  {
    bug: 32,
    what: 'A target can be valid and dropped at the same time.',
    excludedBy: { file: 'test/target-states.ts', test: 'drop and valid exclude each other' },
  },
  {
    bug: 33,
    what: 'Iterating over the targets of a POINT device reads its point as a tree.',
    excludedBy: {
      file: 'test/external.ts',
      test: 'associate, disassociate, degrade, restore: what they do and what they refuse',
    },
  },
  {
    bug: 34,
    what: 'A dropped target is shown with a destination of uninitialised memory.',
    excludedBy: {
      file: 'test/external.ts',
      test: 'the cache by handle: get, set, remove, flush, and iteration in pages',
    },
  },
  {
    bug: 35,
    what: 'The fault state is never initialised.',
    cannotArise: 'The fault state is made whole by its constructor, and there is no other way to one.',
  },
  {
    bug: 36,
    what: 'varpd aborts when a plugin degrades a device that has just gone.',
    excludedBy: {
      file: 'test/defects-device.ts',
      test: 'a plugin whose device is gone degrades nobody, and is told so',
    },
  },
  {
    bug: 37,
    what: 'A second lookup instance for a device aborts varpd.',
    excludedBy: {
      file: 'test/create.ts',
      test: 'create: the checks, in order, each ahead of all that follow',
    },
  },
  {
    bug: 38,
    what: 'A lookup instance whose activation failed half way is left behind.',
    excludedBy: {
      file: 'test/transaction.ts',
      test: 'create-overlay: every failure leaves nothing behind, with a line for each part at fault',
    },
  },
  {
    bug: 39,
    what: 'A lookup that ends after its instance was destroyed uses freed memory.',
    excludedBy: {
      file: 'test/chaos.ts',
      test: 'a device is deleted with lookups open: it always finishes, and what they answer is of no account',
    },
  },
  {
    bug: 40,
    what: 'Any local user can create, activate, change and destroy.',
    excludedBy: {
      file: 'test/rights.ts',
      test: 'every operation and every call states a right that there is, and what changes needs write',
    },
  },
  {
    bug: 41,
    what: 'Reading a property succeeds although the plugin failed.',
    excludedBy: { file: 'test/control.ts', test: 'errors of operations carry their errno and status' },
  },
  {
    bug: 42,
    what: 'The size of the possible values is given as the size of the default.',
    cannotArise:
      'Default and possible values are fields of one declaration that crosses as JSON: there are no sizes to be mixed up.',
  },
  {
    bug: 43,
    what: 'A full page of targets is larger than the buffer it is put into.',
    excludedBy: {
      file: 'test/cache-api.ts',
      test: 'pages: 500 a page, each target once; the views show the first and say that there are more',
    },
  },
  {
    bug: 44,
    what: 'Several transport errors abort the calling program.',
    excludedBy: { file: 'test/control.ts', test: 'the client: no daemon, and what is no daemon' },
  },
  {
    bug: 45,
    what: 'Whatever goes wrong with a restore, its file is deleted.',
    excludedBy: {
      file: 'test/restore.ts',
      test: 'what cannot come back is named and stays kept; the others come back',
    },
  },
  {
    bug: 46,
    what: 'Devices of the direct plugin do not survive a restart.',
    excludedBy: {
      file: 'test/restore.ts',
      test: 'every property, the state, the order and the address of the link come back',
    },
  },
  {
    bug: 47,
    what: 'Switching persistence off releases a lock that is not held.',
    cannotArise: 'Persistence is there or not from the start, and takes no lock.',
  },
  {
    bug: 48,
    what: 'ICMPv6 of other types is taken for a neighbour solicitation.',
    excludedBy: { file: 'test/proxy.ts', test: 'NDP: every check, with every tagging' },
  },
  {
    bug: 49,
    what: 'Options of a neighbour solicitation are read beyond its end.',
    excludedBy: { file: 'test/proxy.ts', test: 'NDP: options of any kind, compared with a slow twin' },
  },
  {
    bug: 50,
    what: 'A packet that is not both IPv4 and UDP is taken for DHCP.',
    excludedBy: { file: 'test/proxy.ts', test: 'DHCP: every check, with every tagging' },
  },
  {
    bug: 51,
    what: 'direct starts without a port that the encap needs.',
    excludedBy: {
      file: 'test/activate.ts',
      test: 'activate: EINVAL for the encap before EAGAIN for the lookup, then it works, then EEXIST',
    },
  },
  {
    bug: 52,
    what: 'The hexadecimal digits of a JSON escape are read as decimal ones.',
    excludedBy: {
      file: 'test/files-json.ts',
      test: 'escapes that illumos got wrong: four hexadecimal digits, and characters above 127',
    },
  },
  {
    bug: 53,
    what: 'A start of files that fails says -1 instead of what is wrong.',
    excludedBy: { file: 'test/files.ts', test: 'a start that fails says why, and can be tried again' },
  },
  {
    bug: 54,
    what: 'Two devices of one vnetid on a remote abort varpd.',
    notBuilt: 'the lookup plugin svp',
  },
  {
    bug: 55,
    what: 'A device that joins a degraded remote is not degraded.',
    notBuilt: 'the lookup plugin svp',
  },
  {
    bug: 56,
    what: 'A resolver that fails for the moment is asked again without a pause.',
    notBuilt: 'the lookup plugin svp',
  },
  {
    bug: 57,
    what: 'A connection that falls out of DNS is never unlinked, and its end aborts.',
    notBuilt: 'the lookup plugin svp',
  },
  {
    bug: 58,
    what: 'The id of a query that failed is never free again.',
    notBuilt: 'the lookup plugin svp',
  },
  {
    bug: 59,
    what: 'A connection that is reset fails every query, where all but the first should move to another.',
    notBuilt: 'the lookup plugin svp',
  },
  {
    bug: 60,
    what: 'Requests and replies that are split over several reads or writes are corrupted or never end.',
    notBuilt: 'the lookup plugin svp',
  },
  {
    bug: 61,
    what: 'The length of a log reply is compared in the wrong byte order, and so has no bound.',
    notBuilt: 'the lookup plugin svp',
  },
  {
    bug: 62,
    what: 'The operation of a reply is not compared with that of its request.',
    notBuilt: 'the lookup plugin svp',
  },
  {
    bug: 63,
    what: 'A 16-bit status is swapped as if it had 32 bits.',
    notBuilt: 'the lookup plugin svp',
  },
  {
    bug: 64,
    what: 'The address family of a VL3 request is always that of IPv6.',
    notBuilt: 'the lookup plugin svp',
  },
  {
    bug: 65,
    what: 'The end of the log loop waits for a word that nobody gives.',
    notBuilt: 'the lookup plugin svp',
  },
  {
    bug: 66,
    what: 'A remote cannot be released while it reads its log.',
    notBuilt: 'the lookup plugin svp',
  },
  {
    bug: 67,
    what: 'The sentence about a bad search name has the encap name.',
    excludedBy: {
      file: 'test/defects-device.ts',
      test: 'a name that is refused is the one that the sentence has',
    },
  },
  {
    bug: 68,
    what: 'A property that create-overlay cannot set gives -1 instead of its status.',
    excludedBy: {
      file: 'test/transaction.ts',
      test: 'create-overlay: every failure leaves nothing behind, with a line for each part at fault',
    },
  },
  {
    bug: 69,
    what: 'An activation that fails destroys the lookup instance twice.',
    excludedBy: {
      file: 'test/transaction.ts',
      test: 'create-overlay: every failure leaves nothing behind, with a line for each part at fault',
    },
  },
  {
    bug: 70,
    what: 'Numbers may have garbage behind them, and those from 2^63 on are another number.',
    excludedBy: { file: 'test/property.ts', test: 'uint: 0 to 2^64 - 1, decimal digits and nothing else' },
  },
  {
    bug: 71,
    what: 'Delete fails half done when varpd is stopped.',
    excludedBy: { file: 'test/defects-device.ts', test: 'a lookup plugin whose stop' },
  },
  {
    bug: 72,
    what: "A target without '=' crashes modify-overlay.",
    excludedBy: {
      file: 'test/cache-cli.ts',
      test: 'usage errors: a sentence, exit code 2, before any daemon is asked',
    },
  },
  {
    bug: 73,
    what: 'An IPv6 destination cannot be written.',
    excludedBy: { file: 'test/destination.ts', test: 'every combination is written and read back' },
  },
  {
    bug: 74,
    what: 'A malformed destination is ignored, and said to be set.',
    excludedBy: {
      file: 'test/cache-cli.ts',
      test: 'what the daemon refuses: a sentence that names the entry, its exit code, and nothing has changed',
    },
  },
  {
    bug: 75,
    what: '64-bit numbers are printed as signed 32-bit ones.',
    excludedBy: {
      file: 'test/cli-values.ts',
      test: 'the command line: the same digits in, in the table, with -p and in the document',
    },
  },
  {
    bug: 76,
    what: 'A dropped target is printed like any other.',
    excludedBy: { file: 'test/cache-cli.ts', test: 'set, drop, delete, flush, and what is shown of it' },
  },
];

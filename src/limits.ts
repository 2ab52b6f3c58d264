/** Every limit of the control plane, in one place; those of the data plane are in `assembly/layout.ts`. */

export const MTU_MIN_BYTES = 576;
/** illumos' ceiling: 9000 less a flat reserve for the outer headers. */
export const MTU_MAX_BYTES = 8900;
/** What `mtu_max` may raise that to: with a tagged Ethernet header and 8 bytes of VXLAN it fits in a UDP datagram over IPv4. */
export const MTU_CEILING_BYTES = 65_507 - 8 - 18;
/** What a host may offer as its largest TCP segment: no less than is of any use, no more than an IP packet has room for. */
export const [TCP_MSS_MIN, TCP_MSS_MAX] = [88, 65_495];
/** Until the sum of the underlay's MTU and the overhead is known. */
export const MTU_DEFAULT_BYTES = 1400;

/** Targets of a device unless its property says another number. */
export const TARGETS_DEFAULT = 65_536;
/** Seconds for which an unknown address may be remembered. */
export const NEGATIVE_TTL_MAX = 3600;

/** IFNAMSIZ less the NUL (man 7 netdevice). */
export const DEVICE_NAME_BYTES_MAX = 15;
export const PLUGIN_NAME_BYTES_MAX = 31;
export const PROPERTY_NAME_BYTES_MAX = 63;
export const PROPERTY_VALUE_BYTES_MAX = 256;
export const VNETID_BYTES_MAX = 8;

/** RFC 7348 section 5: outer source ports come from the dynamic range. */
export const SOURCE_PORT_MIN = 49152;
export const SOURCE_PORT_MAX = 65535;
/**
 * Send sockets on an underlay address, where nobody says how many. The far side's kernel gives each source port to one worker, so that
 * it takes some for each to leave none without work; fewer make longer messages of many flows (measured with 2 workers: 4 and 8
 * alike, 16 a sixth slower).
 */
export function bankFor(workers: number): number {
  return workers <= 2 ? 8 : Math.min(8 * workers, 64);
}
export const SOCKET_BUFFER_BYTES = 4 * 1024 * 1024;

export const MEMORY_DEFAULT_BYTES = 256 * 1024 * 1024;
/** 4 GiB is what 32-bit WebAssembly can address; a page less so that the end is a valid offset. */
export const MEMORY_MAX_BYTES = 4 * 1024 * 1024 * 1024 - 65536;
export const WORKERS_MAX = 64;
/** Arenas beyond one a worker, for replacing a worker whose thread may still be alive. */
export const ARENAS_SPARE = 2;

/** To be woken takes tens of microseconds on a virtual machine; looking on for longer brought no more (measured). */
export const TUNING_DEFAULT = { batch: 64, busyPollUs: 50 } as const;
export const BUSY_POLL_US_MAX = 10_000;
/** What a TAP's queue keeps by itself, and bounds: at most 64 KiB each, in the kernel's memory. */
export const RING_DEFAULT = 1000;
export const [RING_MIN, RING_MAX] = [64, 16_384];

/** The longest a worker waits for frames before it looks round (and shows that it is alive). */
export const WORKER_WAIT_MS = 500;
/** The same while frames wait for main to say that they may go on. */
export const WORKER_DRAIN_MS = 1;
/** A worker that has not moved for this long is looked at closely (`src/datapath/watch.ts`): longer than its own wait. */
export const WORKER_WATCH_MS = 600;
/** One that has not moved for this long is stuck, or starved. */
export const WORKER_STUCK_MS = 1000;
/** CPU that it is given under close watch before it counts as spinning: more than any turn of the loop takes. */
export const WORKER_SPIN_CPU_MS = 300;
/** For how long it waits for something else than a CPU, under close watch, before it counts as blocked. */
export const WORKER_BLOCKED_MS = WORKER_STUCK_MS - WORKER_WATCH_MS;
/** A starved worker is well again when it has not stood still for this long. */
export const WORKER_FED_MS = 3000;
/** What a stuck worker gets to leave by itself before its thread is ended. */
export const WORKER_LEAVE_MS = 200;
export const WORKER_START_MS_MAX = 5000;
/** The same on a machine that gives the process hardly any CPU. */
export const WORKER_START_STARVED_MS_MAX = 60_000;
/** Deaths within WORKER_DEATHS_WINDOW_MS after which restarts are put off and devices degraded. */
export const WORKER_DEATHS_MAX = 5;
export const WORKER_DEATHS_WINDOW_MS = 10_000;
export const WORKER_BACKOFF_MS_MAX = 8000;
export const CORE_TRAPS_MAX = 5;
export const CORE_TRAPS_WINDOW_MS = 10_000;
/** Longer than it takes to notice a stuck worker, end its thread and replace it. */
export const QUIESCE_MS_MAX = 4000;
export const SUPERVISE_MS = 100;

/** An offload that has failed is tried again after this, doubling up to the second. */
export const OFFLOAD_RETRY_MS = 60_000;
export const OFFLOAD_RETRY_MS_MAX = 3_600_000;

/** How often link and address events are read. */
export const NETLINK_POLL_MS = 50;
/** How long after a change of routes MTUs are looked at. */
export const ROUTES_MS = 250;
/** RFC 1191 section 6.3, RFC 8201 section 4: a path MTU is tried anew after ten minutes. */
export const PATH_MTU_AGE_MS = 600_000;
/** RFC 791 section 2.4 has every host take so much, RFC 8200 section 5 every way. */
export const PATH_MTU_MIN_BYTES = { 4: 576, 6: 1280 } as const;
/** RFC 8899 section 5.1.2: what probes of a path begin with. */
export const PATH_MTU_BASE_BYTES = { 4: 1200, 6: 1280 } as const;
/** Probes of paths, of all devices: what is asked for beyond that waits. */
export const PATH_PROBE_RATE = { perSecond: 200, burst: 40 } as const;
/** How often answers to probes are looked for, and which destinations there are. */
export const PATH_PROBE_MS = 100;
export const PATH_AIMS_MS = 1000;
/** How often the error queues of send sockets are looked at. */
export const ERROR_QUEUE_MS = 100;
/** Answers to frames that are too big, of a device. */
export const TOO_BIG_RATE = { perSecond: 50, burst: 100 } as const;
/** A lookup plugin that takes longer than this to start after a restart is a fault of its device. */
export const RESUME_LATE_MS = 1000;
/** What devices get to come back whole before the daemon serves. */
export const RESUME_WAIT_MS = 500;
/** Lookup plugins that are started at a time after a restart. */
export const RESUMES_MAX = 32;

/** A start that failed is tried again after this, doubling up to the second. */
export const START_RETRY_MS = 500;
export const START_RETRY_MS_MAX = 8000;

export const FAULT_TEXT_BYTES_MAX = 255;

export const CONTROL_BODY_BYTES_MAX = 64 * 1024;
/** A page of a list ends behind the row that reaches this. */
export const CONTROL_PAGE_BYTES_MAX = 256 * 1024;
/** Rows of a page at most, and where a client does not say how many. */
export const CONTROL_PAGE_ROWS_MAX = 512;
/** How old an answer may be that a user who may not write gets, as long as no event happens meanwhile. */
export const CONTROL_KEPT_MS = 1000;

/** How many may be there at a time: of one user who may not write, of all those users, and with the others. */
export interface Caps {
  readonly user: number;
  readonly users: number;
  readonly all: number;
}
/** More than the commands of one person need at a time; the rest is kept for those who may write. */
export const CONTROL_CONNECTIONS: Caps = { user: 16, users: 48, all: 64 };
/** Streams of events. */
export const CONTROL_READERS: Caps = { user: 4, users: 16, all: 32 };
/** External handles that are open. */
export const CONTROL_HANDLES: Caps = { user: 4, users: 16, all: 48 };
/**
 * Requests of one user who may not write, and of all those users. A connection counts as one, and so does each
 * CONTROL_COST_BYTES of an answer that was built for him.
 */
export const CONTROL_USER_RATE = { perSecond: 100, burst: 400 } as const;
export const CONTROL_USERS_RATE = { perSecond: 400, burst: 1600 } as const;
export const CONTROL_COST_BYTES = 16 * 1024;
/** Connections of those users that are taken, also to be refused; others wait in the backlog of the public socket. */
export const CONTROL_ACCEPT_RATE = { perSecond: 500, burst: 250 } as const;
/** How long the public socket is left alone when there were more. */
export const CONTROL_PAUSE_MS = 100;
/** Connections that wait on a socket; the kernel tells others to come again (EAGAIN). */
export const CONTROL_BACKLOG = 128;
/** Bytes that wait until a user who may not write reads them; he is refused then. */
export const CONTROL_UNREAD_BYTES_MAX = 1024 * 1024;
/** An answer that such a user has not read by then is cut off; a stream is not: what waits for it is bounded. */
export const CONTROL_UNREAD_MS_MAX = 10_000;
/** A request, head and body, has come by then. */
export const CONTROL_ARRIVAL_MS_MAX = 5000;
/** An idle connection of a user is closed behind this, where he or all of them have half of what they may. */
export const CONTROL_IDLE_MS_MAX = 5000;
/** How long a client tries again while the daemon is busy. */
export const CONTROL_BUSY_MS_MAX = 5000;
/** What a client waits for an answer. */
export const CONTROL_REQUEST_MS_MAX = 30_000;
/** The server's is longer, so that a client whose request takes too long says that, and not that the daemon has gone. */
export const CONTROL_CONNECTION_MS_MAX = CONTROL_REQUEST_MS_MAX + 5_000;
/** What the end of a plugin's instance may take when the daemon ends. */
export const PLUGIN_END_MS_MAX = 1000;
/**
 * What a planned stop may take before the process leaves anyway: an end of an instance that is under way, the end that
 * follows it, and a worker that is found to be stuck meanwhile.
 */
export const DRAIN_MS_MAX = 3500;
/** And for each device more: closing a link takes the kernel some 20 ms. */
export const DRAIN_DEVICE_MS_MAX = 50;

/** Requests of another user, in a process that is that user: credentials are the process's, and the kernel vouches for them. */
import { spawn } from 'node:child_process';

export interface Identity {
  readonly uid: number;
  readonly gid: number;
  /** Supplementary. */
  readonly groups: readonly number[];
}

export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly body?: object;
  /** On a handle of his own: opened for writing where he may. */
  readonly isCall?: boolean;
}

export interface Told {
  /** 0 when he cannot even connect. */
  readonly status: number;
  readonly text: string;
  /** Of an error; empty otherwise. */
  readonly errno: string;
  readonly code: string;
  readonly message: string;
}

export interface Answers {
  readonly answers: readonly Told[];
  /** What opening a handle for writing gave. */
  readonly writer: Told | undefined;
}

const program = `
  const { request } = require('node:http');
  const { socket, uid, gid, groups, asked } = JSON.parse(process.argv[1]);
  process.setgroups(groups);
  process.setgid(gid);
  process.setuid(uid);
  const told = (status, text) => {
    let error = {};
    try { error = JSON.parse(text).error ?? {}; } catch {}
    const { errno = '', code = '', message = '' } = error;
    return { status, text, errno, code, message };
  };
  const ask = (method, path, body, more = {}, isStream = false) => new Promise((resolve) => {
    const headers = body === undefined ? { ...more } : { 'content-type': 'application/json', ...more };
    const text = body === undefined ? undefined : JSON.stringify(body);
    if (text !== undefined) headers['content-length'] = Buffer.byteLength(text);
    const call = request({ socketPath: socket, method, path, headers, agent: false }, (response) => {
      let all = '';
      response.setEncoding('utf8').on('data', (part) => {
        all += part;
        if (isStream && response.statusCode === 200) resolve({ ...told(200, all), end: () => call.destroy() });
      });
      response.on('error', () => {});
      response.on('end', () => resolve(told(response.statusCode, all)));
    });
    call.on('error', (error) => resolve(told(0, error.code)));
    call.end(text);
  });
  (async () => {
    let handle;
    let writer;
    if (asked.some(({ isCall }) => isCall)) {
      handle = await ask('POST', '/v1/handle', { write: true }, {}, true);
      const { end, ...rest } = handle;
      writer = rest;
      if (handle.status !== 200) handle = await ask('POST', '/v1/handle', { write: false }, {}, true);
    }
    const answers = [];
    for (const { method, path, body, isCall } of asked) {
      const more = isCall ? { 'overlay-handle': JSON.parse(handle.text.split('\\n')[0]).token } : {};
      answers.push(await ask(method, path, body, more));
    }
    console.log(JSON.stringify({ answers, writer }));
    process.exit(0);
  })();
`;

/** Asks all of it, one after the other, as somebody. Needs root. */
export function askAs(socket: string, who: Identity, asked: readonly Asked[]): Promise<Answers> {
  return new Promise((resolve, reject) => {
    const { uid, gid, groups } = who;
    const child = spawn(
      process.execPath,
      ['-e', program, JSON.stringify({ socket, uid, gid, groups, asked })],
      {
        cwd: '/',
        stdio: ['ignore', 'pipe', 'inherit'],
        timeout: 30_000,
      },
    );
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (part: string) => {
      output += part;
    });
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) resolve(JSON.parse(output));
      else reject(new Error(`the client ended with ${code}`));
    });
  });
}

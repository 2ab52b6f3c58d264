#!/usr/bin/env node
/** `overlayadm`: the administrator's command. It imports nothing itself, so that it can say why the rest cannot be loaded. */
try {
  await import('./program.js');
} catch (error) {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code !== 'EMFILE' && code !== 'ENFILE') throw error;
  console.error(
    `overlayadm: the program cannot be loaded (${message}): raise the limit of open files (ulimit -n)`,
  );
  process.exitCode = 1;
}

export {};

/** Where a plugin's module is: a path, or a package as Node finds it from a directory. */
import { existsSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { isAbsolute, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { OverlayError } from '../../errors.js';
import { checkTrust } from '../../sys/trusted-file.js';
import type { ModuleAddress } from './protocol.js';

/** PATH_MAX of Linux (man 7 path_resolution). */
const SPECIFIER_BYTES_MAX = 4096;

/**
 * The module that a specifier means, seen from `directory`: a path when it is absolute, begins with a dot or names
 * something that is there; else a package. A directory is loaded as its `main` says. Throws ENOENT naming the remedy,
 * EINVAL for what can be neither.
 */
export function resolveModule(specifier: string, directory: string): ModuleAddress {
  if (specifier === '' || specifier.includes('\0') || Buffer.byteLength(specifier) > SPECIFIER_BYTES_MAX) {
    throw new OverlayError(
      'EINVAL',
      'bad_plugin_module',
      'a plugin is loaded from the path of its module or the name of its npm package',
    );
  }
  const path = pathOf(specifier, directory);
  if (path === undefined) return packageOf(specifier, directory);
  if (!existsSync(path)) {
    throw new OverlayError(
      'ENOENT',
      'no_such_plugin_module',
      `there is no plugin module '${specifier}': ${path} does not exist`,
    );
  }
  if (!statSync(path).isDirectory()) return fileOf(path);
  let main: string;
  try {
    main = createRequire(join(directory, 'package.json')).resolve(path);
  } catch {
    throw new OverlayError(
      'ENOENT',
      'no_such_plugin_module',
      `there is no plugin module in ${path}: build it, or name its main module in package.json`,
    );
  }
  return fileOf(main);
}

/** A module that others may write would have its code run with our rights; an operator may try out one of anybody's. */
function fileOf(path: string): ModuleAddress {
  checkTrust(path, statSync(path), { isOwnerFine: true });
  return { kind: 'file', url: pathToFileURL(path).href };
}

function pathOf(specifier: string, directory: string): string | undefined {
  if (specifier.startsWith('file:')) {
    try {
      return fileURLToPath(specifier);
    } catch {
      throw new OverlayError('EINVAL', 'bad_plugin_module', `'${specifier}' is not the URL of a file`);
    }
  }
  const path = resolve(directory, specifier);
  return isAbsolute(specifier) || specifier.startsWith('.') || existsSync(path) ? path : undefined;
}

/** Only whether it is installed: which of its files it means depends on its `exports`, which `import` knows best. */
function packageOf(specifier: string, directory: string): ModuleAddress {
  const [first = '', second = ''] = specifier.split('/');
  const name = first.startsWith('@') ? `${first}/${second}` : first;
  const from = join(directory, 'package.json');
  const folders = createRequire(from).resolve.paths(name) ?? [];
  if (folders.some((folder) => existsSync(join(folder, name, 'package.json')))) {
    return { kind: 'package', name: specifier, from };
  }
  throw new OverlayError(
    'ENOENT',
    'no_such_plugin_module',
    `there is no plugin module '${specifier}': install the package where ${directory} can find it, or give a path`,
  );
}

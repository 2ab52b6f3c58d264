/** `overlayadm create-plugin`: the directory of a new lookup plugin, ready to be built and tested. */
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { isPluginName } from '../encap/plugin.js';
import { OverlayError } from '../errors.js';
import { gitignore, packageJson, tsconfigJson } from './scaffold/package.js';
import { pluginSource, testSource } from './scaffold/plugin.js';
import { readme } from './scaffold/readme.js';

/** npm's rule for the names of new packages, without their length (docs.npmjs.com, package.json, name). */
const packageName = /^(?:@[a-z0-9][a-z0-9._-]*\/)?([a-z0-9][a-z0-9._-]*)$/;
const PACKAGE_NAME_CHARACTERS_MAX = 214;
const reserved: readonly string[] = [...builtinModules, 'node_modules', 'favicon.ico', 'overlayd'];
/** Lookup plugins that are there already. */
const lookups: readonly string[] = ['direct', 'files', 'learn', 'external'];

/**
 * Writes a new plugin and gives the paths of its files, in the order in which they are of interest. The directory is
 * made when it is not there, with those above it.
 *
 * Throws EINVAL for a name that no plugin or npm package can have, EEXIST when the directory is a file or not empty,
 * and the system's name for it when it cannot be written; nothing is left behind then.
 *
 * @param name npm name; without its scope it is the plugin's name, what `search` is set to
 */
export function createPlugin(name: string, directory: string): string[] {
  const plugin = pluginNameOf(name);
  const files: readonly (readonly [path: string, text: string])[] = [
    ['src/index.ts', pluginSource(plugin)],
    ['test/index.ts', testSource(plugin)],
    ['README.md', readme(name, plugin)],
    ['package.json', packageJson(name)],
    ['tsconfig.json', tsconfigJson()],
    ['.gitignore', gitignore],
  ];
  const made = firstMissing(resolve(directory));
  try {
    if (made === undefined) checkEmpty(directory);
    mkdirSync(directory, { recursive: true });
    for (const [path, text] of files) {
      mkdirSync(join(directory, path, '..'), { recursive: true });
      writeFileSync(join(directory, path), text, { flag: 'wx' });
    }
  } catch (error) {
    if (error instanceof OverlayError) throw error;
    undo(directory, made, files);
    const { code = 'EIO', message } = error as NodeJS.ErrnoException;
    throw new OverlayError(code, 'plugin_not_written', `the plugin cannot be written: ${message}`);
  }
  return files.map(([path]) => join(directory, path));
}

function pluginNameOf(name: string): string {
  const plugin = packageName.exec(name)?.[1];
  const refuse = (why: string): never => {
    throw new OverlayError(
      'EINVAL',
      'bad_plugin_name',
      `'${name.slice(0, PACKAGE_NAME_CHARACTERS_MAX)}' cannot be a plugin: ${why}`,
    );
  };
  if (plugin === undefined || name.length > PACKAGE_NAME_CHARACTERS_MAX) {
    return refuse('it is the name of an npm package, of a-z, 0-9, dots, hyphens and underscores');
  }
  if (!isPluginName(plugin)) return refuse("without its scope it has at most 31 bytes, the plugin's name");
  if (lookups.includes(plugin)) return refuse('there is a lookup plugin of this name already');
  if (reserved.includes(name)) return refuse('npm gives this name to no package');
  return plugin;
}

/** The topmost of the directories that are yet to be made; undefined when it is there. */
function firstMissing(directory: string): string | undefined {
  let missing: string | undefined;
  for (let above = directory; !existsSync(above); above = dirname(above)) missing = above;
  return missing;
}

function checkEmpty(directory: string): void {
  if (statSync(directory).isDirectory() && readdirSync(directory).length === 0) return;
  throw new OverlayError(
    'EEXIST',
    'directory_not_empty',
    `${directory} is not an empty directory; name another, or one that does not exist`,
  );
}

/** Takes away what was made. The directory was empty, or was not there. */
function undo(
  directory: string,
  made: string | undefined,
  files: readonly (readonly [string, string])[],
): void {
  const tops = new Set(files.map(([path]) => join(directory, path.split('/')[0]!)));
  for (const path of made === undefined ? tops : [made]) {
    if (existsSync(path)) rmSync(path, { recursive: true });
  }
}

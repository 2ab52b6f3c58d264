/** `package.json` and what else a new plugin's package has besides its source. */
import { readFileSync } from 'node:fs';

/** Of the overlayd that makes the plugin: it is what the plugin is made for. */
interface OwnPackage {
  readonly version: string;
  readonly engines: { readonly node: string };
  readonly devDependencies: Readonly<Record<'typescript' | '@types/node', string>>;
}

function ownPackage(): OwnPackage {
  const url = new URL('../../../../package.json', import.meta.url);
  return JSON.parse(readFileSync(url, 'utf8')) as OwnPackage;
}

/** @param name npm name, with its scope */
export function packageJson(name: string): string {
  const { version, engines, devDependencies } = ownPackage();
  const content = {
    name,
    version: '0.1.0',
    description: 'A lookup plugin for overlayd',
    type: 'module',
    engines,
    main: 'dist/src/index.js',
    types: 'dist/src/index.d.ts',
    exports: { '.': { types: './dist/src/index.d.ts', default: './dist/src/index.js' } },
    files: ['dist/src'],
    scripts: { build: 'tsc', prepare: 'tsc', test: 'tsc && node --test dist/test/index.js' },
    peerDependencies: { overlayd: `>=${version}` },
    devDependencies: {
      '@types/node': `^${devDependencies['@types/node']}`,
      typescript: `^${devDependencies.typescript}`,
    },
  };
  return `${JSON.stringify(content, null, 2)}\n`;
}

export function tsconfigJson(): string {
  const content = {
    compilerOptions: {
      target: 'es2023',
      lib: ['es2024'],
      module: 'nodenext',
      moduleResolution: 'nodenext',
      rootDir: '.',
      outDir: 'dist',
      types: ['node'],
      strict: true,
      declaration: true,
      verbatimModuleSyntax: true,
      skipLibCheck: true,
    },
    include: ['src', 'test'],
  };
  return `${JSON.stringify(content, null, 2)}\n`;
}

export const gitignore = 'dist\nnode_modules\n';

// Finds a function's handler: "dir/file.object.handler" below the directory of the function's files.

import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { RuntimeError } from './errors.mjs';

// load returns the handler, or throws what is reported when a function does not start.
export async function load(root, name) {
  if (name.includes('..')) {
    throw new RuntimeError('MalformedHandlerName', `'${name}' is not a valid handler name. Use absolute paths when specifying root directories in handler names.`);
  }
  const base = path.basename(name);
  const dir = name.slice(0, name.length - base.length);
  const parts = /^([^.]*)\.(.+)$/.exec(base);
  if (!parts) throw new RuntimeError('MalformedHandlerName', 'Bad handler');

  const handler = find(await loadModule(root, dir, parts[1]), parts[2].split('.'));
  if (!handler) throw new RuntimeError('HandlerNotFound', `${name} is undefined or not exported`);
  if (typeof handler !== 'function') throw new RuntimeError('HandlerNotFound', `${name} is not a function`);
  return handler;
}

// find also looks into the default export, where compilers put what was module.exports.
function find(module, keys) {
  const below = (object) => keys.reduce((value, key) => value?.[key], object);
  return below(module) ?? below(module.default);
}

async function loadModule(root, dir, name) {
  try {
    return await loadFile(root, dir, name);
  } catch (error) {
    if (error instanceof SyntaxError) throw renamed('UserCodeSyntaxError', error);
    if (error?.code === 'MODULE_NOT_FOUND' || error?.code === 'ERR_MODULE_NOT_FOUND') throw renamed('ImportModuleError', error);
    throw error;
  }
}

// renamed keeps the trace of the error, which says where in the function's files it is.
function renamed(type, error) {
  const result = new RuntimeError(type, String(error));
  result.stack = `${result.name}: ${error.stack}`;
  return result;
}

async function loadFile(root, dir, name) {
  const file = path.resolve(root, dir, name);
  const require = createRequire(path.join(path.resolve(root), 'package.json'));
  const module = isModule(path.dirname(file));
  const tries = [
    ['', requireOrImport],
    ['.js', module ? importFile : requireOrImport],
    ['.mjs', importFile],
    ['.cjs', requireOrImport],
  ];
  if (process.features.typescript) {
    tries.push(['.ts', module ? importFile : requireOrImport], ['.mts', importFile], ['.cts', requireOrImport]);
  }
  for (const [extension, read] of tries) {
    if (isFile(file + extension)) return read(file + extension, require);
  }
  if (fs.existsSync(file)) return requireOrImport(file, require); // a directory with an index.js
  // A package of the function.
  return requireOrImport(require.resolve(name, { paths: [path.resolve(root, dir), root] }), require);
}

function importFile(file) {
  return import(pathToFileURL(file).href);
}

// requireOrImport imports what cannot be required, which is a module that awaits at its top level, or any with an older Node.
async function requireOrImport(file, require) {
  try {
    return require(file);
  } catch (error) {
    if (error?.code === 'ERR_REQUIRE_ESM' || error?.code === 'ERR_REQUIRE_ASYNC_MODULE') return importFile(file);
    throw error;
  }
}

function isFile(file) {
  return fs.statSync(file, { throwIfNoEntry: false })?.isFile() ?? false;
}

// isModule reports whether .js files in dir are ES modules: the nearest package.json says so.
function isModule(dir) {
  for (;;) {
    if (path.basename(dir) === 'node_modules') return false;
    const file = path.join(dir, 'package.json');
    if (isFile(file)) {
      try {
        return JSON.parse(fs.readFileSync(file, 'utf8'))?.type === 'module';
      } catch (error) {
        console.warn(`${file} cannot be read, it will be ignored for ES module detection purposes.`, error);
        return false;
      }
    }
    const above = path.dirname(dir);
    if (above === dir) return false;
    dir = above;
  }
}

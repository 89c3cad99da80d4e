// Errors as the Lambda Runtime API has them, and as they are logged.

import { types } from 'node:util';

// RuntimeError is an error that this client finds, not the function. Its name is the errorType that is reported.
export class RuntimeError extends Error {
  constructor(type, message) {
    super(message);
    this.name = `Runtime.${type}`;
  }
}

function looksLikeError(value) {
  return types.isNativeError(value) || (value?.name && value.message && typeof value.stack === 'string');
}

// describe returns what is reported of anything that was thrown. It must not throw itself: a function can throw an object
// whose getters do.
export function describe(thrown) {
  try {
    if (looksLikeError(thrown)) {
      return { errorType: String(thrown.name), errorMessage: String(thrown.message), trace: String(thrown.stack ?? '').split('\n') };
    }
    return { errorType: typeof thrown, errorMessage: String(thrown), trace: [] };
  } catch {
    return {
      errorType: 'handled',
      errorMessage: 'callback called with Error argument, but there was a problem while retrieving one or more of its message, name, and stack',
      trace: [],
    };
  }
}

// log writes an error to standard error in the one line that Lambda has for it: time, request id, level, title, JSON.
export function log(title, thrown, requestId = 'undefined') {
  process.stderr.write(`${new Date().toISOString()}\t${requestId}\tERROR\t${title}\t${detailed(thrown)}\n`);
}

// detailed is the JSON of an error with all the properties that its author gave it.
function detailed(thrown) {
  try {
    return JSON.stringify(thrown, (_, value) => {
      if (!(value instanceof Error)) return value;
      const stack = typeof value.stack === 'string' ? value.stack.split('\n') : undefined;
      return { errorType: value.name, errorMessage: value.message, code: value.code, ...value, stack };
    }) ?? String(thrown);
  } catch {
    return JSON.stringify(describe(thrown));
  }
}

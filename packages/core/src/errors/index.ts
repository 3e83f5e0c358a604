export { ERROR_CODES, type ErrorCode, type ErrorKind } from './codes.ts';
export { ioError } from './io.ts';
export { assert, LlmxError, type LlmxErrorOptions, LlmxProblems } from './llmx-error.ts';
export { nearest, suggestion } from './nearest.ts';

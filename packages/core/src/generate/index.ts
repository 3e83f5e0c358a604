export {
  type DecodingRound,
  generate,
  generateText,
  type GenerationOptions,
  type GenerationSource,
} from './generate.ts';
export { type DecodingReport, DecodingStatistics } from './statistics.ts';

/** Formats: what a run's lines become in Kafka, as the log-opt `format` says. */
import { type Chunk, ChunkEncoder, type RunNames } from '../wire/chunk.ts'
import { JSON_CONTENT_TYPE, JSON_INFLATION, JsonLineEncoder } from '../wire/json-line.ts'
import { CHUNK_CONTENT_TYPE } from '../wire/record.ts'
import { CHUNK_COSTS, type Costs } from './chunks.ts'

export type Format = {
  contentType: string
  costs: Costs
  /** Hands the value of each record that the chunk becomes to `add`; a value is valid until `add` returns. */
  encode(chunk: Chunk, add: (value: Uint8Array) => void): void
}

const encoder = new ChunkEncoder()

export const CHUNKS: Format = {
  contentType: CHUNK_CONTENT_TYPE,
  costs: CHUNK_COSTS,
  encode: (chunk, add) => add(encoder.encode(chunk)),
}

/** A record a line, each with all that is known of its run. */
export function jsonLines(names: RunNames): Format {
  const lines = new JsonLineEncoder(names)
  return {
    contentType: JSON_CONTENT_TYPE,
    costs: { line: lines.lineBytes, byte: JSON_INFLATION },
    encode: (chunk, add) => lines.encode(chunk, add),
  }
}

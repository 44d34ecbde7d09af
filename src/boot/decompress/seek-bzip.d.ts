declare module 'seek-bzip' {
  /** Decodes one bzip2 stream; `read`, `readByte` and `eof` feed it, `writeByte` takes what comes out. */
  function decode(
    input: {
      read(buffer: Uint8Array, offset: number, length: number): number;
      readByte(): number;
      eof(): boolean;
    },
    output: { writeByte(byte: number): void },
    multistream?: boolean,
  ): void;
  const bunzip: { decode: typeof decode };
  export default bunzip;
}

declare module 'seek-bzip' {
  /** Decodes one bzip2 stream; `eof` and `readByte` feed it, `writeByte` takes what comes out. */
  function decode(
    input: { readByte(): number; eof(): boolean },
    output: { writeByte(byte: number): void },
    multistream?: boolean,
  ): void;
  const bunzip: { decode: typeof decode };
  export default bunzip;
}

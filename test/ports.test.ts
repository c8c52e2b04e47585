/**
 * The native files of the systems that this one is not: compiled against stand-ins for their headers
 * (native/headers), and what they do with packets run over a pair of sockets.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';

const ROOT = join(import.meta.dirname, '..');
const NATIVE = join(ROOT, 'native');
const COMPILER = 'clang++';
const skip =
  spawnSync(COMPILER, ['--version']).status === 0 ? false : `there is no ${COMPILER} here`;
const FLAGS = ['-std=c++17', '-fno-exceptions', '-Wall', '-Wextra', '-Werror'];
/** As in build.mjs. */
const ENDINGS: Readonly<Record<string, readonly string[]>> = {
  darwin: ['bsd', 'msg', 'darwin'],
  freebsd: ['bsd', 'msg', 'freebsd'],
  dragonfly: ['bsd', 'msg', 'dragonfly'],
  openbsd: ['bsd', 'mmsg', 'openbsd'],
  netbsd: ['bsd', 'mmsg', 'netbsd'],
};

const sources = (system: string): readonly string[] =>
  readdirSync(NATIVE).filter((file) =>
    ENDINGS[system]?.some((ending) => file.endsWith(`_${ending}.cc`)),
  );

function compile(args: readonly string[]): void {
  const { status, stderr } = spawnSync(COMPILER, args, { encoding: 'utf8', timeout: 120_000 });
  assert.equal(status, 0, stderr);
}

/** What every system must supply (tun.h, udp.h), one of each. */
const CONTRACT = [
  /^int TunOpen\(/m,
  /^void TunClose\(/m,
  /^int TunSetMtu\(/m,
  /^ssize_t TunReadOne\(/m,
  /^int TunWriteOne\(/m,
  /^int UdpPrepare\(/m,
  /^size_t UdpReceive\(/m,
  /^size_t UdpSend\(/m,
  /^std::shared_ptr<UdpScratch> MakeUdpScratch\(/m,
  /^int RoutesOpen\(/m,
];

/** Writes a packet of each version and a frame, and reads one of each, through the other end of a pair. */
const EXERCISE = `
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <sys/socket.h>
#include <unistd.h>
#include "tun_bsd.h"
extern "C" int socketpair(int, int, int, int*);
int main() {
  int pair[2];
  if (socketpair(1, SOCK_DGRAM, 0, pair) != 0) return 1;
  static vpn::TunDevice device;
  for (uint8_t version : {uint8_t{4}, uint8_t{6}}) {
    uint8_t packet[20] = {static_cast<uint8_t>(version << 4), 1, 2, 3};
    iovec parts[2] = {{}, {packet, sizeof(packet)}};
    if (vpn::TunWriteOne(device, pair[0], parts, 2, vpn::Offload()) != 0) return 2;
    uint8_t raw[64];
    if (read(pair[1], raw, sizeof(raw)) != 24) return 3;
    if (memcmp(raw + 4, packet, sizeof(packet)) != 0) return 4;
    printf("%d: %02x%02x%02x%02x\\n", version, raw[0], raw[1], raw[2], raw[3]);
    if (write(pair[1], raw, 24) != 24) return 5;
    uint8_t back[64];
    vpn::Offload offload;
    if (vpn::TunReadOne(device, pair[0], back, sizeof(back), &offload) != 20) return 6;
    if (memcmp(back, packet, sizeof(packet)) != 0) return 7;
  }
  device.ethernet = true;
  uint8_t frame[14] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6};
  iovec parts[2] = {{}, {frame, sizeof(frame)}};
  if (vpn::TunWriteOne(device, pair[0], parts, 2, vpn::Offload()) != 0) return 8;
  uint8_t raw[64];
  if (read(pair[1], raw, sizeof(raw)) != 14 || memcmp(raw, frame, 14) != 0) return 9;
  if (write(pair[1], frame, 14) != 14) return 10;
  vpn::Offload offload;
  if (vpn::TunReadOne(device, pair[0], raw, sizeof(raw), &offload) != 14) return 11;
  if (memcmp(raw, frame, 14) != 0) return 12;
  const char* names[] = {"tun0", "tun17", "tun", "tunx", "tap0", "tun0/../null", "tun9999999"};
  for (const char* name : names) printf("%d ", vpn::UnitOf(name, "tun"));
  return 0;
}
`;

for (const [system, endings] of Object.entries(ENDINGS)) {
  describe(`native code for ${system}`, { skip }, () => {
    const headers = join(NATIVE, 'headers', system);

    it('supplies each function of the contract once', () => {
      const code = sources(system).map((file) => readFileSync(join(NATIVE, file), 'utf8'));
      for (const one of CONTRACT) {
        assert.equal(code.filter((text) => one.test(text)).length, 1, String(one));
      }
      assert.ok(endings.every((ending) => sources(system).some((f) => f.includes(`_${ending}.`))));
    });

    for (const file of sources(system)) {
      it(`${file} compiles, its static_asserts hold, and no function has an #if`, () => {
        const path = join(NATIVE, file);
        compile(['-fsyntax-only', ...FLAGS, '-isystem', headers, path]);
        assert.doesNotMatch(readFileSync(path, 'utf8'), /^\s*#\s*(if|else|elif)/m);
      });
    }

    it('puts the address family in front of packets and takes it off, and leaves frames alone', () => {
      const folder = mkdtempSync(join(tmpdir(), 'vpnp-'));
      try {
        const main = join(folder, 'main.cc');
        const program = join(folder, 'main');
        writeFileSync(main, EXERCISE);
        // Byte order is the same call everywhere; everything else runs on the real kernel.
        const library = ['tun_bsd.cc', 'offload.cc', 'packet.cc'].map((f) => join(NATIVE, f));
        const where = ['-isystem', headers, '-I', NATIVE];
        compile([...FLAGS, '-Wno-missing-braces', ...where, '-o', program, main, ...library]);
        const { status, stdout } = spawnSync(program, { encoding: 'utf8', timeout: 10_000 });
        assert.equal(status, 0);
        const inet6 = { darwin: 30, freebsd: 28, dragonfly: 28, openbsd: 24, netbsd: 24 }[system];
        const hex = (inet6 ?? 0).toString(16).padStart(8, '0');
        assert.equal(stdout, `4: 00000002\n6: ${hex}\n0 17 -1 -1 -1 -1 -1 `);
      } finally {
        rmSync(folder, { recursive: true });
      }
    });
  });
}

describe('the native files', () => {
  it('are chosen by their endings as build.mjs does', () => {
    const build = readFileSync(join(ROOT, 'build.mjs'), 'utf8');
    for (const [system, endings] of Object.entries(ENDINGS)) {
      const words = endings.map((ending) => `'${ending}'`).join(', ');
      assert.ok(build.includes(`${system}: [${words}]`), system);
    }
  });
});

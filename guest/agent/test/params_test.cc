#include "params.h"

#include <doctest/doctest.h>

#include <string>

#include "error.h"

using namespace tsvmm::agent;

namespace {

const char* const kRun = R"({
  "id": "demo",
  "config": {"ociVersion": "1.0.2", "process": {"args": ["sh"]}, "root": {"path": "rootfs"}},
  "rootfs": {"type": "virtiofs", "tag": "rootfs"},
  "streams": {"stdin": 1025, "stdout": 1026, "stderr": 1027}
})";

/// The good parameters with the value at a JSON pointer replaced.
Json with(const std::string& pointer, const std::string& value) {
  Json params = Json::parse(kRun);
  params[Json::json_pointer(pointer)] = Json::parse(value);
  return params;
}

std::string refusal(const Json& params) {
  try {
    parseRunParams(params);
  } catch (const ParamsError& error) {
    return error.what();
  }
  return "accepted";
}

bool startsWith(const std::string& text, const std::string& start) { return text.rfind(start, 0) == 0; }

}  // namespace

TEST_CASE("container.run: a share and three streams") {
  const RunParams run = parseRunParams(Json::parse(kRun));
  CHECK(run.id == "demo");
  CHECK(run.rootfs.type == RootfsSource::Type::kVirtiofs);
  CHECK(run.rootfs.source == "rootfs");
  CHECK(run.streams.ports.standardInput == 1025u);
  CHECK(run.streams.ports.standardOutput == 1026u);
  CHECK(run.streams.ports.standardError == 1027u);
  CHECK_FALSE(run.streams.ports.terminal.has_value());
  CHECK(run.streams.preserved.empty());
  CHECK(run.cgroup == "/demo");
  CHECK(run.mountsTag.empty());
  CHECK(run.config["process"]["args"][0] == "sh");
}

TEST_CASE("container.run: a disk, a terminal and a control group") {
  Json params = Json::parse(kRun);
  params["rootfs"] = Json::parse(R"({"type": "disk", "device": "/dev/vda", "readonly": true})");
  params["config"]["process"]["terminal"] = true;
  params["config"]["process"]["consoleSize"] = Json::parse(R"({"height": 24, "width": 80})");
  params["config"]["linux"] = Json::parse(R"({"cgroupsPath": "machine/one"})");
  params["streams"] = Json::parse(R"({"terminal": 1025})");
  const RunParams run = parseRunParams(params);
  CHECK(run.rootfs.type == RootfsSource::Type::kDisk);
  CHECK(run.rootfs.source == "/dev/vda");
  CHECK(run.rootfs.readonly);
  CHECK(run.streams.ports.terminal.has_value());
  REQUIRE(run.streams.windowSize.has_value());
  CHECK(run.streams.windowSize->rows == 24);
  CHECK(run.streams.windowSize->columns == 80);
  CHECK(run.cgroup == "/machine/one");
}

TEST_CASE("container.run: streams may be left out") {
  Json params = Json::parse(kRun);
  params.erase("streams");
  CHECK_FALSE(parseRunParams(params).streams.ports.standardOutput.has_value());
}

TEST_CASE("container.run: each wrong field is named") {
  const struct {
    const char* pointer;
    const char* value;
    const char* message;
  } cases[] = {
      {"/id", "1", "id:"},
      {"/id", "\"\"", "id:"},
      {"/id", "\"..\"", "id:"},
      {"/id", "\"a/b\"", "id:"},
      {"/id", "\"a\\u0000b\"", "id:"},
      {"/config", "[]", "config:"},
      {"/config", "null", "config:"},
      {"/config/process", "\"sh\"", "config.process:"},
      {"/config/process/terminal", "1", "config.process.terminal:"},
      {"/config/root", "\"x\"", "config.root:"},
      {"/config/linux", "[]", "config.linux:"},
      {"/config/linux", "{\"cgroupsPath\": 1}", "config.linux.cgroupsPath:"},
      {"/config/linux", "{\"cgroupsPath\": \"/a/../..\"}", "config.linux.cgroupsPath:"},
      {"/config/linux", "{\"cgroupsPath\": \"..\"}", "config.linux.cgroupsPath:"},
      {"/config/linux", "{\"cgroupsPath\": \"//\"}", "config.linux.cgroupsPath:"},
      {"/rootfs", "\"rootfs\"", "rootfs:"},
      {"/rootfs/type", "\"nfs\"", "rootfs.type:"},
      {"/rootfs/tag", "\"\"", "rootfs.tag:"},
      {"/rootfs/tag", "\"0123456789012345678901234567890123456\"", "rootfs.tag:"},
      {"/mounts", "\"mounts\"", "mounts:"},
      {"/mounts", "{}", "mounts.tag:"},
      {"/mounts", "{\"tag\": \"0123456789012345678901234567890123456\"}", "mounts.tag:"},
      {"/config/mounts", "{}", "config.mounts:"},
      {"/config/mounts", "[\"/a\"]", "config.mounts:"},
      {"/config/mounts", "[{\"source\": 1}]", "config.mounts:"},
      {"/rootfs", "{\"type\": \"disk\", \"device\": \"vda\"}", "rootfs.device:"},
      {"/rootfs", "{\"type\": \"disk\", \"device\": \"/dev/../etc/passwd\"}", "rootfs.device:"},
      {"/rootfs", "{\"type\": \"disk\", \"device\": \"/dev/vda\", \"readonly\": 1}", "rootfs.readonly:"},
      {"/streams", "[]", "streams:"},
      {"/streams/stdin", "\"1025\"", "streams.stdin:"},
      {"/streams/stdout", "0", "streams.stdout:"},
      {"/streams/stdout", "-1", "streams.stdout:"},
      {"/streams/stderr", "1.5", "streams.stderr:"},
      {"/streams/stderr", "4294967295", "streams.stderr:"},
      {"/streams/stderr", "1e99", "streams.stderr:"},
      {"/streams/terminal", "1028", "streams.terminal:"},
  };
  for (const auto& one : cases) {
    CAPTURE(one.pointer);
    CAPTURE(one.value);
    const std::string message = refusal(with(one.pointer, one.value));
    CAPTURE(message);
    CHECK(startsWith(message, one.message));
  }
}

TEST_CASE("container.run: a terminal excludes the three streams, and its size is checked") {
  Json params = with("/config/process/terminal", "true");
  CHECK(startsWith(refusal(params), "streams:"));
  params["streams"] = Json::parse(R"({"terminal": 1025})");
  CHECK(refusal(params) == "accepted");
  params["config"]["process"]["consoleSize"] = Json::parse(R"({"height": 24})");
  CHECK(startsWith(refusal(params), "config.process.consoleSize.width:"));
  params["config"]["process"]["consoleSize"] = Json::parse(R"({"height": 24, "width": 65536})");
  CHECK(startsWith(refusal(params), "config.process.consoleSize.width:"));
  params["config"]["process"]["consoleSize"] = 80;
  CHECK(startsWith(refusal(params), "config.process.consoleSize:"));
}

TEST_CASE("container.run: missing fields are named") {
  for (const char* name : {"id", "config", "rootfs"}) {
    Json params = Json::parse(kRun);
    params.erase(name);
    CHECK(startsWith(refusal(params), std::string(name) + ":"));
  }
}

TEST_CASE("container.kill") {
  const KillParams kill = parseKillParams(Json::parse(R"({"id": "a", "signal": 15, "all": true})"));
  CHECK(kill.id == "a");
  CHECK(kill.signal == 15);
  CHECK(kill.all);
  CHECK_FALSE(parseKillParams(Json::parse(R"({"id": "a", "signal": 64})")).all);
  for (const char* bad :
       {"{}", R"({"id": "a"})", R"({"id": "a", "signal": 0})", R"({"id": "a", "signal": 65})",
        R"({"id": "a", "signal": -9})", R"({"id": "a", "signal": "KILL"})", R"({"id": "../a", "signal": 9})",
        R"({"id": "a", "signal": 9, "all": "yes"})"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(parseKillParams(Json::parse(bad)), ParamsError);
  }
}

TEST_CASE("container.resize") {
  const ResizeParams resize = parseResizeParams(Json::parse(R"({"id": "a", "rows": 50, "columns": 132})"));
  CHECK(resize.size.rows == 50);
  CHECK(resize.size.columns == 132);
  for (const char* bad : {R"({"id": "a", "rows": 50})", R"({"id": "a", "rows": -1, "columns": 1})",
                          R"({"id": "a", "rows": 70000, "columns": 1})"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(parseResizeParams(Json::parse(bad)), ParamsError);
  }
}

TEST_CASE("machine.time") {
  CHECK(parseTimeParams(Json::parse(R"({"realtimeNs": "1700000000123456789"})")) == 1700000000123456789);
  for (const char* bad : {"{}", R"({"realtimeNs": 5})", R"({"realtimeNs": ""})", R"({"realtimeNs": "1x"})",
                          R"({"realtimeNs": "-1"})", R"({"realtimeNs": "99999999999999999999"})"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(parseTimeParams(Json::parse(bad)), ParamsError);
  }
}

TEST_CASE("container.create: preserved descriptors") {
  const char* const good =
      R"([{"port": 1029, "access": "read"}, {"port": 1030, "access": "write"}, {"port": 1031, "access": "both"}])";
  using Access = PreservedPort::Access;
  CHECK(parseRunParams(with("/preserved", good)).streams.preserved ==
        std::vector<PreservedPort>{{1029, Access::kRead}, {1030, Access::kWrite}, {1031, Access::kBoth}});
  for (const char* bad : {"5", "[0]", "[\"1029\"]", "{}"}) {
    CHECK(startsWith(refusal(with("/preserved", bad)), "preserved:"));
  }
  for (const char* bad :
       {R"([{"access": "read"}])", R"([{"port": 0, "access": "read"}])",
        R"([{"port": 4294967295, "access": "read"}])", R"([{"port": "5", "access": "read"}])"}) {
    CHECK(startsWith(refusal(with("/preserved", bad)), "preserved.port:"));
  }
  for (const char* bad :
       {R"([{"port": 5}])", R"([{"port": 5, "access": "all"}])", R"([{"port": 5, "access": 3}])"}) {
    CHECK(startsWith(refusal(with("/preserved", bad)), "preserved.access:"));
  }
  Json many = Json::array();
  for (int i = 0; i < 65; ++i) {
    many.push_back({{"port", 2000 + i}, {"access", "both"}});
  }
  CHECK(startsWith(refusal(with("/preserved", many.dump())), "preserved:"));
}

TEST_CASE("container.exec: a process, its streams and its name") {
  const char* const good = R"({"id": "demo", "exec": "e1", "process": {"args": ["ls"], "cwd": "/"},
                               "streams": {"stdout": 1030}, "preserved": [{"port": 1031, "access": "both"}],
                               "cgroup": "/sub"})";
  const ExecParams exec = parseExecParams(Json::parse(good));
  CHECK(exec.id == "demo");
  CHECK(exec.exec == "e1");
  CHECK(exec.cgroup == "/sub");
  CHECK(exec.process["cwd"] == "/");
  CHECK(exec.streams.ports.standardOutput == 1030u);
  CHECK_FALSE(exec.streams.ports.standardInput.has_value());
  CHECK(exec.streams.preserved == std::vector<PreservedPort>{{1031, PreservedPort::Access::kBoth}});

  const struct {
    const char* pointer;
    const char* value;
    const char* start;
  } wrong[] = {
      {"/id", "\"../x\"", "id:"},
      {"/exec", "\"..\"", "exec:"},
      {"/exec", "\"a/b\"", "exec:"},
      {"/exec", "5", "exec:"},
      {"/process", "[]", "process:"},
      {"/process/args", "[]", "process.args:"},
      {"/process/args", "[5]", "process.args:"},
      {"/process/args", "\"ls\"", "process.args:"},
      {"/process/terminal", "1", "process.terminal:"},
      {"/process/terminal", "true", "streams: expected only a terminal, as process.terminal is true"},
      {"/cgroup", "5", "cgroup:"},
      {"/cgroup", "\"\"", "cgroup:"},
      {"/cgroup", "\"sub\"", "cgroup:"},
      {"/cgroup", "\"/a/../..\"", "cgroup:"},
      {"/streams", "5", "streams:"},
      {"/streams/terminal", "1030", "streams.terminal:"},
  };
  for (const auto& [pointer, value, start] : wrong) {
    Json params = Json::parse(good);
    params[Json::json_pointer(pointer)] = Json::parse(value);
    CAPTURE(pointer);
    CHECK_THROWS_AS(parseExecParams(params), ParamsError);
    try {
      parseExecParams(params);
    } catch (const ParamsError& error) {
      CHECK(startsWith(error.what(), start));
    }
  }
}

TEST_CASE("signals and sizes may be for an exec") {
  CHECK(parseKillParams(Json::parse(R"({"id": "a", "signal": 2})")).exec.empty());
  CHECK(parseKillParams(Json::parse(R"({"id": "a", "exec": "e", "signal": 2})")).exec == "e");
  CHECK_THROWS_AS(parseKillParams(Json::parse(R"({"id": "a", "exec": "", "signal": 2})")), ParamsError);
  CHECK(parseResizeParams(Json::parse(R"({"id": "a", "exec": "e", "rows": 1, "columns": 2})")).exec == "e");
  CHECK_THROWS_AS(parseResizeParams(Json::parse(R"({"id": "a", "exec": "../e", "rows": 1, "columns": 2})")),
                  ParamsError);
}

TEST_CASE("container.update: resources") {
  CHECK(parseUpdateParams(Json::parse(R"({"id": "a", "resources": {"pids": {"limit": 5}}})"))
            .resources["pids"]["limit"] == 5);
  CHECK_THROWS_AS(parseUpdateParams(Json::parse(R"({"id": "a"})")), ParamsError);
  CHECK_THROWS_AS(parseUpdateParams(Json::parse(R"({"id": "a", "resources": []})")), ParamsError);
}

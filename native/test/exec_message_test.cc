#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "exec/message.h"
#include "exec/options.h"

using tsvmm::exec::Message;
using tsvmm::exec::Options;
using tsvmm::exec::parseMessage;
using tsvmm::exec::parseOptions;
using Kind = Message::Kind;

TEST_CASE("exec message: what a sandbox says") {
  CHECK(parseMessage(R"({"jsonrpc":"2.0","id":1,"result":{"pid":42}})").kind == Kind::kRunning);
  CHECK(parseMessage(R"( { "result" : null , "id":1 } )").kind == Kind::kRunning);
  const Message exit = parseMessage(R"({"jsonrpc":"2.0","method":"exit","params":{"status":137}})");
  CHECK(exit.kind == Kind::kExit);
  CHECK(exit.status == 137);
  // The order of members says nothing.
  CHECK(parseMessage(R"({"params":{"x":[1,{"y":"z"}],"status":7},"method":"exit"})").status == 7);
  CHECK(parseMessage(R"({"method":"event","params":{"status":"created","list":[true,false,null,-1.5e3]}})")
            .kind == Kind::kOther);
  const Message refused = parseMessage(
      R"({"id":1,"error":{"code":1,"data":{"message":"not this"},"message":"caf\u00e9 \ud83d\ude00 \"x\"\\\n\u001b[31m"}})");
  CHECK(refused.kind == Kind::kRefused);
  CHECK(refused.text == "caf\xc3\xa9 \xf0\x9f\x98\x80 \"x\"\\  [31m");
  CHECK(parseMessage(R"({"error":{"code":1}})").text.empty());
  CHECK(parseMessage(R"({"error":{"message":"\ud83d \ud83dx \udc00"}})").text ==
        "\xef\xbf\xbd \xef\xbf\xbdx \xef\xbf\xbd");
}

TEST_CASE("exec message: what is none") {
  for (const char* line : {"",
                           " ",
                           "x",
                           "[]",
                           "{",
                           "{}x",
                           R"({"a")",
                           R"({"a":})",
                           R"({"a":1,})",
                           R"({"error":"text"})",
                           R"({"error":{"message":5}})",
                           R"({"method":"exit"})",
                           R"({"method":"exit","params":{}})",
                           R"({"method":"exit","params":{"status":256}})",
                           R"({"method":"exit","params":{"status":-1}})",
                           R"({"method":"exit","params":{"status":1.5}})",
                           R"({"method":"exit","params":{"status":99999999999999999999}})",
                           R"({"method":"exit","params":{"status":"0"}})",
                           R"({"error":{"message":"\u12"}})",
                           R"({"error":{"message":"\x"}})",
                           R"({"error":{"message":"\)",
                           R"({"method":"e)",
                           "{\"method\":\"a\nb\"}",
                           R"({"error":{"message":"\ud800\u12g4"}})"}) {
    CAPTURE(line);
    CHECK(parseMessage(line).kind == Kind::kBroken);
  }
  CHECK(parseMessage("{\"a\":" + std::string(100000, '[')).kind == Kind::kBroken);
  std::string deep = "{\"a\":";
  for (int i = 0; i < 1000; i++) {
    deep += "{\"a\":";
  }
  CHECK(parseMessage(deep).kind == Kind::kBroken);
}

TEST_CASE("exec message: a text cut off anywhere is broken") {
  const std::string whole =
      R"({"id":1,"error":{"code":-1e3,"message":"\u00e9\ud83d\ude00"},"list":[{"a":[true]},"b"]})";
  for (size_t length = 0; length < whole.size(); length++) {
    CHECK(parseMessage(std::string_view(whole).substr(0, length)).kind == Kind::kBroken);
  }
  CHECK(parseMessage(whole).kind == Kind::kRefused);
}

TEST_CASE("exec options") {
  const auto parse = [](std::vector<const char*> arguments, Options& options, std::string& error) {
    arguments.insert(arguments.begin(), "tsvmm-exec");
    return parseOptions(static_cast<int>(arguments.size()), const_cast<char**>(arguments.data()), options,
                        error);
  };
  Options options;
  std::string error;
  REQUIRE(parse({"/s", "--pid-file", "/p", "--console-socket", "/c", "--size", "24x80", "--terminal",
                 "--report", "--preserve", "61"},
                options, error));
  CHECK(options.socket == "/s");
  CHECK(options.pidFile == "/p");
  CHECK(options.consoleSocket == "/c");
  CHECK(options.rows == 24);
  CHECK(options.columns == 80);
  CHECK(options.terminal);
  CHECK(options.report);
  CHECK(options.preserved == 61);
  const std::vector<std::vector<const char*>> wrong = {{},
                                                       {"a", "b"},
                                                       {"a", "--pid-file"},
                                                       {"a", "--preserve", "62"},
                                                       {"a", "--preserve", "-1"},
                                                       {"a", "--preserve", ""},
                                                       {"a", "--size", "24"},
                                                       {"a", "--size", "24x"},
                                                       {"a", "--size", "24x70000"},
                                                       {"a", "--other", "x"}};
  for (const auto& arguments : wrong) {
    Options refused;
    error.clear();
    CHECK(!parse(arguments, refused, error));
    CHECK(!error.empty());
  }
}

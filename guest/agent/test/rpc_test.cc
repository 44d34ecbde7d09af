#include "rpc.h"

#include <doctest/doctest.h>

using namespace tsvmm::agent;

namespace {

/// The error code of the answer that a line gets instead of being a request.
int refusal(const std::string& line) {
  const auto parsed = parseRequest(line);
  REQUIRE(std::holds_alternative<std::string>(parsed));
  const std::string& answer = std::get<std::string>(parsed);
  REQUIRE(answer.back() == '\n');
  const Json message = Json::parse(answer);
  CHECK(message["jsonrpc"] == "2.0");
  CHECK(message.contains("id"));
  return message["error"]["code"].get<int>();
}

}  // namespace

TEST_CASE("lines are cut at newlines, however they arrive") {
  LineReader reader;
  CHECK(reader.append("one\ntw"));
  CHECK(reader.next() == "one");
  CHECK_FALSE(reader.next().has_value());
  CHECK(reader.append("o\n\nthree"));
  CHECK(reader.next() == "two");
  CHECK(reader.next() == "");
  CHECK_FALSE(reader.next().has_value());
  CHECK(reader.append("\n"));
  CHECK(reader.next() == "three");
}

TEST_CASE("a line may have 4 MiB and not a byte more") {
  LineReader good;
  const std::string most(kMaxLine, 'x');
  CHECK(good.append(most));
  CHECK_FALSE(good.next().has_value());
  CHECK(good.append("\n"));
  CHECK(good.next() == most);

  LineReader bad;
  CHECK(bad.append(most));
  CHECK_FALSE(bad.append("x"));

  LineReader second;
  CHECK(second.append("short\n" + most));
  CHECK(second.next() == "short");
  CHECK_FALSE(second.append("xx"));
}

TEST_CASE("a request is read with its id, method and parameters") {
  const auto parsed =
      parseRequest(R"({"jsonrpc":"2.0","id":7,"method":"container.kill","params":{"id":"a"}})");
  REQUIRE(std::holds_alternative<Request>(parsed));
  const auto& request = std::get<Request>(parsed);
  CHECK(request.id == Json(7));
  CHECK(request.method == "container.kill");
  CHECK(request.params["id"] == "a");
}

TEST_CASE("a notification has no id, and parameters may be left out") {
  const auto parsed = parseRequest(R"({"jsonrpc":"2.0","method":"machine.shutdown"})");
  REQUIRE(std::holds_alternative<Request>(parsed));
  CHECK_FALSE(std::get<Request>(parsed).id.has_value());
  CHECK(std::get<Request>(parsed).params == Json::object());
}

TEST_CASE("what is not JSON is a parse error") {
  for (const char* line : {"", " ", "{", "}", "{\"a\":}", "nul", "{\"jsonrpc\":\"2.0\"} x", "\"\x80\"",
                           "{\"jsonrpc\":\"2.0\",\"method\":\"\xff\xfe\"}", "[1,2", "\x01"}) {
    CAPTURE(line);
    CHECK(refusal(line) == -32700);
  }
  CHECK(refusal(std::string("{\"a\":\"\0\"}", 9)) == -32700);
}

TEST_CASE("nesting has a limit, so that no message exhausts the stack") {
  CHECK(refusal(std::string(1'000'000, '[')) == -32700);
  std::string objects;
  for (int i = 0; i < 100'000; ++i) {
    objects += "{\"a\":";
  }
  CHECK(refusal(objects) == -32700);
  // Brackets in strings do not count.
  const std::string harmless =
      R"({"jsonrpc":"2.0","id":1,"method":"m","params":{"a":")" + std::string(1000, '[') + R"(\"{{{"}})";
  CHECK(std::holds_alternative<Request>(parseRequest(harmless)));
}

TEST_CASE("JSON that is no request is refused") {
  for (const char* line :
       {"1", "null", "[]", "\"x\"", "{}", R"({"jsonrpc":"1.0","method":"m"})",
        R"({"jsonrpc":2.0,"method":"m"})", R"({"jsonrpc":"2.0"})", R"({"jsonrpc":"2.0","method":1})",
        R"({"jsonrpc":"2.0","method":"m","id":{}})", R"({"jsonrpc":"2.0","method":"m","id":[1]})",
        R"({"jsonrpc":"2.0","result":{},"id":1})"}) {
    CAPTURE(line);
    CHECK(refusal(line) == -32600);
  }
}

TEST_CASE("parameters are an object") {
  CHECK(refusal(R"({"jsonrpc":"2.0","id":1,"method":"m","params":[1]})") == -32602);
  CHECK(refusal(R"({"jsonrpc":"2.0","id":1,"method":"m","params":null})") == -32602);
}

TEST_CASE("messages are one line each, whatever the strings hold") {
  const std::string error =
      encodeError("x", RpcCode::kOperation, "two\nlines and a bad byte \xff", {{"errno", 2}});
  CHECK(error.find('\n') == error.size() - 1);
  const Json message = Json::parse(error);
  CHECK(message["id"] == "x");
  CHECK(message["error"]["code"] == 1);
  CHECK(message["error"]["message"] == "two\nlines and a bad byte \xef\xbf\xbd");
  CHECK(message["error"]["data"]["errno"] == 2);
  CHECK(Json::parse(encodeResult(3, Json::object())) ==
        Json::parse(R"({"jsonrpc":"2.0","id":3,"result":{}})"));
  CHECK(Json::parse(encodeNotification("ready", {{"protocol", 1}})) ==
        Json::parse(R"({"jsonrpc":"2.0","method":"ready","params":{"protocol":1}})"));
}

-- One script for every wrk scenario; its arguments are key=value pairs after "--":
--   browser=1     the 12 headers of a desktop browser
--   varied=1      the same, and the query and the cookie are others at each request
--   upload=BYTES  POST a body of that size
--   close=1       Connection: close, so that each request makes a connection
--   pipeline=N    N requests written at once
-- The last line it prints is "BENCH " and a JSON object (bench/load/wrk.py reads it).

local browser = {
  ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
  ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
  ["Accept-Language"] = "en-GB,en;q=0.7,de;q=0.3",
  ["Accept-Encoding"] = "gzip, deflate, br, zstd",
  ["Connection"] = "keep-alive",
  ["Referer"] = "http://bench.local/shop/items?page=2&order=price",
  ["Cookie"] = "session=7f0c2a9be1d84c63a5f1; theme=dark; consent=1; _ga=GA1.2.1234567890.1700000000",
  ["Upgrade-Insecure-Requests"] = "1",
  ["Sec-Fetch-Dest"] = "document",
  ["Sec-Fetch-Mode"] = "navigate",
  ["Sec-Fetch-Site"] = "same-origin",
}  -- and Host makes 12

local threads = 0

function setup(thread)
  thread:set("begin", threads * 1000000000)  -- no two threads count the same numbers
  threads = threads + 1
end

-- A request whose query and cookie have a number that no other has. It is put together here: wrk.format() is slow.
local function varied()
  wrk.headers["Cookie"] = browser["Cookie"]:gsub("7f0c2a9be1d84c63a5f1", "@")
  local first, second, third = wrk.format("GET", wrk.path .. "?page=@&order=price"):match("^(.-)@(.-)@(.*)$")
  local number = begin
  request = function()
    number = number + 1
    return string.format("%s%.0f%s%020.0f%s", first, number, second, number, third)
  end
end

function init(args)
  local depth = 1
  for _, pair in ipairs(args) do
    local key, value = pair:match("^(%w+)=(.*)$")
    if key == "browser" or key == "varied" then
      for name, text in pairs(browser) do wrk.headers[name] = text end
      if key == "varied" then varied() end
    elseif key == "upload" then
      wrk.method = "POST"
      wrk.headers["Content-Type"] = "application/octet-stream"
      wrk.body = string.rep("u", tonumber(value))
    elseif key == "close" then
      wrk.headers["Connection"] = "close"
    elseif key == "pipeline" then
      depth = tonumber(value)
    end
  end
  if depth > 1 then
    local batch = string.rep(wrk.format(), depth)
    request = function() return batch end
  end
end

function done(summary, latency, requests)
  local e = summary.errors
  print(string.format(
    'BENCH {"requests": %d, "microseconds": %d, "bytes": %d, ' ..
    '"p50": %.1f, "p99": %.1f, "p999": %.1f, "max": %.1f, ' ..
    '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}',
    summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9), latency.max,
    e.connect, e.read, e.write, e.status, e.timeout))
end

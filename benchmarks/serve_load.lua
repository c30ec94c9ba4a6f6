-- wrk's part of serve_load.py: posts images, one request in `every` bad; `done` prints one JSON object.
-- Arguments: every (0: never), then image files.
local threads, images, bad, count, every = {}, {}, {}, 0, 0

function setup(thread) table.insert(threads, thread) end

function init(arguments)
  every = tonumber(arguments[1])
  for k = 2, #arguments do
    local file = assert(io.open(arguments[k], "rb"))
    images[k - 1] = wrk.format("POST", "/predict", {["Content-Type"] = "image/jpeg"}, file:read("*a"))
    file:close()
  end
  bad[1] = wrk.format("POST", "/predict", nil, "no image")
  bad[2] = wrk.format("POST", "/predict", nil, "")
  bad[3] = wrk.format("GET", "/predict")
  bad[4] = wrk.format("POST", "/predict?top=0", nil, "x")
  bad[5] = wrk.format("GET", "/../../etc/passwd")
  bad[6] = wrk.format("POST", "/predict", {["Content-Type"] = "multipart/form-data; boundary=x"}, "--x\r\n")
  good, refused, busy, failed = 0, 0, 0, 0
end

function request()
  count = count + 1
  if every > 0 and count % every == 0 then return bad[(count / every) % #bad + 1] end
  return images[count % #images + 1]
end

function response(status)
  if status == 200 then good = good + 1
  elseif status == 503 then busy = busy + 1
  elseif status < 500 then refused = refused + 1
  else failed = failed + 1 end
end

function done(summary, latency)
  local sums = {}
  for _, name in ipairs({"good", "refused", "busy", "failed"}) do
    sums[name] = 0
    for _, thread in ipairs(threads) do sums[name] = sums[name] + thread:get(name) end
  end
  local errors = summary.errors
  io.write(string.format(
    '\nJSON {"requests": %d, "seconds": %.3f, "p50_ms": %.3f, "p99_ms": %.3f, "max_ms": %.3f, "good": %d, ' ..
    '"refused": %d, "busy": %d, "failed": %d, "socket_errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    sums.good, sums.refused, sums.busy, sums.failed, errors.connect + errors.read + errors.write + errors.timeout))
end

-- wrk's part of benchmarks/serving.py: posts the bodies of a file in turn, one a line, and ends with a line of JSON.
-- Arguments: path, file of bodies, then headers as name and value.

function init(args)
   local path, file = args[1], args[2]
   local headers = {["Content-Type"] = "application/json"}
   for place = 3, #args, 2 do headers[args[place]] = args[place + 1] end
   requests, turn = {}, 0
   for body in io.lines(file) do
      requests[#requests + 1] = wrk.format("POST", path, headers, body)
   end
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
end

function done(summary, latency, _)
   local errors = summary.errors
   io.write(string.format(
      '\n{"rps": %.2f, "p50_ms": %.4f, "p99_ms": %.4f, "requests": %d, "failed": %d}\n',
      summary.requests * 1e6 / summary.duration, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      summary.requests, errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end

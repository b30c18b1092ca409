-- Runs in Envoy for each request. Reads the model from the body, so that the route can depend on it; measures the time
-- to the first token and the longest silence, over the streamed contents (Envoy's own first byte comes before any
-- token); keeps both bodies, in base64 and up to the route's limit, for the access log.
--
-- Objects of the stream (headers, metadata) must be fetched again after anything that waits for a body.

local NAMESPACE = "genai"
local MAX_PENDING = 1048576 -- bytes of one unfinished line of a stream that are kept

-- A streamed event carries a token when one of these matches. Quotes inside a value are escaped, so they cannot.
local CONTENTS = {
  '"content"%s*:%s*"[^"]',
  '"reasoning_content"%s*:%s*"[^"]',
  '"text"%s*:%s*"[^"]',
  '"tool_calls"%s*:%s*%[%s*{',
}

local function now_ms(handle)
  return tonumber(handle:timestamp())
end

local function put(handle, key, value)
  handle:streamInfo():dynamicMetadata():set(NAMESPACE, key, value)
end

local function refuse(handle, status, message)
  handle:respond(
    { [":status"] = status, ["content-type"] = "application/json" },
    '{"error":{"message":"' .. message .. '","type":"invalid_request_error"}}'
  )
end

local function end_of_string(text, from)
  local at = from
  while true do
    at = string.find(text, '[\\"]', at)
    if not at then
      return nil
    end
    if string.byte(text, at) == 34 then
      return at
    end
    at = at + 2
  end
end

-- The string values of a JSON object's own keys, still escaped; nil when it is not a whole object. Nested values are
-- passed over, not judged: the model server validates the rest. An escaped key is refused: it could be a second "model",
-- which the server would read and this would not.
local function own_strings(text)
  if not string.find(text, "^%s*{") then
    return nil
  end
  local found, depth, key, in_value, at = {}, 0, nil, false, 1
  while true do
    at = string.find(text, '[%[%]{}",:]', at)
    if not at then
      break
    end
    local mark = string.sub(text, at, at)
    if mark == '"' then
      local stop = end_of_string(text, at + 1)
      if not stop then
        return nil
      end
      if depth == 1 then
        local value = string.sub(text, at + 1, stop - 1)
        if in_value then
          found[key] = value
        elseif string.find(value, "\\", 1, true) then
          return nil
        else
          key = value
        end
      end
      at = stop
    elseif mark == "{" or mark == "[" then
      depth = depth + 1
    elseif mark == "}" or mark == "]" then
      depth = depth - 1
    elseif depth == 1 then
      in_value = mark == ":" and key ~= nil
    end
    at = at + 1
  end
  if depth ~= 0 then
    return nil
  end
  return found
end

local function body_of(handle)
  local body = handle:body()
  if not body then
    return ""
  end
  return body:getBytes(0, body:length())
end

local function on_feedback(handle)
  local text = body_of(handle)
  local fields = own_strings(text)
  if not fields or not fields.request_id or (fields.rating ~= "right" and fields.rating ~= "wrong") then
    refuse(handle, "400", "feedback is a JSON object with request_id, rating (right or wrong) and, if wrong, correction")
    return
  end
  put(handle, "feedback", handle:base64Escape(text))
end

local function on_completion(handle)
  put(handle, "started", now_ms(handle))
  local text = body_of(handle)
  local fields = own_strings(text)
  if not fields then
    refuse(handle, "400", "the body is not a JSON object")
    return
  end
  local model = fields.model
  if not model or #model > 128 or not string.find(model, "^[%w][%w%._/-]*$") then
    refuse(handle, "400", "the body names no model; GET /v1/models lists those served here")
    return
  end
  local headers = handle:headers()
  headers:replace("x-genai-model", model)
  local user = fields.user or headers:get("x-genai-user")
  handle:clearRouteCache()
  local limit = handle:metadata():get("capture_bytes") or 0
  put(handle, "limit", limit)
  if user and user ~= "" then
    put(handle, "user", handle:base64Escape(string.sub(user, 1, 256)))
  end
  if limit > 0 then
    put(handle, "request", handle:base64Escape(string.sub(text, 1, limit)))
    put(handle, "request_bytes", #text)
  end
end

function envoy_on_request(handle)
  local headers = handle:headers()
  headers:remove("x-genai-model")
  -- A compressed answer could not be measured or kept.
  headers:remove("accept-encoding")
  if headers:get(":method") ~= "POST" then
    return
  end
  local path = string.match(headers:get(":path") or "", "^[^?]*")
  if path == "/v1/feedback" then
    on_feedback(handle)
  elseif path == "/v1/chat/completions" or path == "/v1/completions" then
    on_completion(handle)
  end
end

local function carries_token(line)
  for _, pattern in ipairs(CONTENTS) do
    if string.find(line, pattern) then
      return true
    end
  end
  return false
end

local function on_line(handle, line, at, seen)
  if string.sub(line, 1, 5) ~= "data:" then
    return
  end
  if string.find(line, '^data:%s*{%s*"error"') then
    seen.broken = true
  elseif carries_token(line) then
    seen.tokens = seen.tokens + 1
    if not seen.last then
      put(handle, "first_token_ms", at - seen.started)
    else
      seen.gap = math.max(seen.gap or 0, at - seen.last)
    end
    seen.last = at
  end
end

function envoy_on_response(handle)
  local known = handle:streamInfo():dynamicMetadata():get(NAMESPACE)
  if not known or not known.limit then
    return
  end
  local limit = known.limit
  local seen = { started = known.started, tokens = 0 }
  local streamed = string.find(handle:headers():get("content-type") or "", "text/event-stream", 1, true) ~= nil
  local pieces, size, pending = {}, 0, ""
  for chunk in handle:bodyChunks() do
    local length = chunk:length()
    if length > 0 then
      local bytes = chunk:getBytes(0, length)
      if size < limit then
        pieces[#pieces + 1] = string.sub(bytes, 1, limit - size)
      end
      size = size + length
      if streamed then
        local at = now_ms(handle)
        pending = pending .. bytes
        local from = 1
        while true do
          local stop = string.find(pending, "\n", from, true)
          if not stop then
            break
          end
          on_line(handle, string.sub(pending, from, stop - 1), at, seen)
          from = stop + 1
        end
        pending = string.sub(pending, from)
        if #pending > MAX_PENDING then
          pending = ""
        end
      end
    end
  end
  if streamed then
    put(handle, "tokens", seen.tokens)
    if seen.gap then
      put(handle, "max_gap_ms", seen.gap)
    end
    if seen.broken then
      put(handle, "broken", true)
    end
  end
  if limit > 0 then
    put(handle, "response", handle:base64Escape(table.concat(pieces)))
    put(handle, "response_bytes", size)
  end
end

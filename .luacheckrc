-- How luacheck reads the Lua scripts: each file for itself, with the names that it has on the server.
--
-- Those are Redis's, and the functions of the files that its line `-- Needs` names; connection/scripts.py puts these
-- before it. So a name that no needed file defines is an error, and so is a function that no file uses.

std = {
  globals = {},
  read_globals = {
    "KEYS", "ARGV", "bit", "cjson", "cmsgpack", "struct",
    redis = {fields = {"call", "pcall", "error_reply", "status_reply", "sha1hex", "log", "breakpoint", "debug"}},
    -- of Lua 5.1, without what Redis takes away
    "assert", "error", "getmetatable", "ipairs", "next", "pairs", "pcall", "rawequal", "rawget", "rawset", "select",
    "setmetatable", "tonumber", "tostring", "type", "unpack", "xpcall",
    math = {other_fields = true},
    string = {other_fields = true},
    table = {other_fields = true},
  },
}
max_line_length = 120

local function text_of(path)
  local file = assert(io.open(path), "run luacheck in the root of the repository")
  local text = file:read("*a")
  file:close()
  return text
end

-- The words of a dialect, and those that are published, which connection/scripts.py puts in their place.
for name, class in pairs({FIELD = "Field:", STATUS = "Status%(StrEnum%):", WORD = "Status%(StrEnum%):"}) do
  local body = text_of("rhai_tasks/protocol/native.py"):match("\nclass " .. class .. "(.-)\n\n\n")
  local words = {}
  for word in body:gmatch('\n    [A-Z_]+ = "(%w+)"') do words[#words + 1] = word end
  if name == "WORD" then words[#words + 1] = "cancelled" end
  std.read_globals[name] = {fields = words}
end

std.read_globals.PLACES = {fields = {"details"}}

local function path_of(needed)
  return (needed:gsub("^([%w_]+)/([%w_]+)$", "rhai_tasks/%1/lua/%2.lua"))
end

local paths = {}
for path in io.popen("find rhai_tasks bridge -name '*.lua'"):lines() do paths[#paths + 1] = path end

local used = {} -- by path of a needed file: names in the texts of files that need it
for _, path in ipairs(paths) do
  local text = text_of(path)
  local needs = text:match("%-%- Needs  ([^\n]+)") or ""
  files[path] = {read_globals = {}, ignore = {}}
  for needed in needs:gmatch("[%w_]+/[%w_]+") do
    local library = path_of(needed)
    used[library] = used[library] or {}
    for name in text_of(library):gmatch("\nlocal function ([%w_]+)") do
      table.insert(files[path].read_globals, name)
    end
    for name in text:gmatch("[%a_][%w_]*") do used[library][name] = true end
  end
end
for library, names in pairs(used) do
  for name in text_of(library):gmatch("\nlocal function ([%w_]+)") do
    if names[name] then table.insert(files[library].ignore, "211/" .. name) end -- unused only in its own file
  end
end

# ruby-pg, for test_clients.py, as python_clients.py has the clients of Python: ruby client.rb URL
require "json"
require "pg"
require "time"

REFUSED = %q(SELECT * FROM otp.otp_send('sandbox', '{"mobile": 5}'))
TIMEOUT = 1.0

class Client
  def initialize(url)
    @url = url
    connection = connect
    # docs
    connection.type_map_for_results = PG::BasicTypeMapForResults.new(connection)
    # end
    @connection = connection
  end

  def connect = PG.connect(@url)

  def version = PG::VERSION

  def send(provider, mobile, key)
    connection = @connection
    # docs
    sent = connection.exec_params(
      "SELECT * FROM otp.otp_send($1, $2, $3)", [provider, JSON.generate(mobile: mobile), key]).first
    # end
    sent.to_h { |name, value| [name, described(name, value)] }
  end

  def verify(id, code)
    connection = @connection
    # docs
    checked = connection.exec_params(
      "SELECT outcome, attempts_left FROM otp.otp_verify($1::uuid, $2)", [id, code]).first
    # end
    checked.values_at("outcome", "attempts_left")
  end

  def one(statement, *arguments) = @connection.exec_params(statement, arguments).getvalue(0, 0)

  def transaction(ending)
    @connection.exec("BEGIN")
    yield
  ensure
    @connection.exec(ending)
  end

  def rolled_back(id, code) = transaction("rollback") { verify(id, code)[0] }

  def enqueue(mobile, ending)
    transaction(ending) do
      one("SELECT verification_id FROM otp.otp_enqueue('sandbox', $1)", JSON.generate(mobile: mobile))
    end
  end

  def wait(id) = one("SELECT outcome FROM otp_gateway.wait($1::uuid, '20s')", id)

  def refused = @connection.exec(REFUSED).check

  def cancel(provider, mobile, key)
    timer = Thread.new { sleep TIMEOUT; @connection.cancel }
    send(provider, mobile, key)
  ensure
    timer.join
  end

  def late(provider, mobile, key)
    transaction("rollback") do
      @connection.exec("SET LOCAL statement_timeout = '#{TIMEOUT}s'")
      send(provider, mobile, key)
    end
  end

  def listen
    @listener = listener = connect
    # docs
    channel = listener.exec("SELECT otp_gateway.channel()").getvalue(0, 0)
    listener.exec("LISTEN #{channel}")
    # end
  end

  def heard(seconds)
    payloads = []
    listener = @listener
    # docs
    listener.wait_for_notify(seconds.to_f) { |_channel, _pid, payload| payloads << payload }
    # end
    payloads
  end

  def described(name, value)
    return if value.nil?
    text =
      case name
      when "expires_at" then (value.to_r * 1000).floor.to_s
      when "retry_after" then value.split(":").reduce(0) { |sum, part| sum * 60 + part.to_f }.to_s
      when "response" then value.is_a?(String) ? value : JSON.generate(value)
      else value.to_s
      end
    [value.class.name, text]
  end
end

def error(error)
  result = error.respond_to?(:result) ? error.result : nil
  # docs
  field = ->(name) { result&.error_field(name) }
  state, detail, hint = [PG::PG_DIAG_SQLSTATE, PG::PG_DIAG_MESSAGE_DETAIL, PG::PG_DIAG_MESSAGE_HINT].map(&field)
  # end
  { class: error.class.name, message: error.message, sqlstate: state, detail: detail, hint: hint }
end

client = Client.new(ARGV[0])
$stdout.sync = true
$stdin.each_line do |line|
  operation, *arguments = line.chomp.split("\t")
  begin
    answer = { value: client.public_send(operation, *arguments) }
  rescue PG::Error => e
    answer = { error: error(e) }
  end
  puts JSON.generate(answer)
end

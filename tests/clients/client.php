<?php
// PDO of PHP, for test_clients.py, as python_clients.py has the clients of Python: php client.php DSN

const REFUSED = "SELECT * FROM otp.otp_send('sandbox', '{\"mobile\": 5}')";

class Client
{
    private PDO $pdo;
    private PDO $listener;

    public function __construct(private string $dsn)
    {
        $this->pdo = $this->connect();
    }

    private function connect(): PDO
    {
        return new PDO($this->dsn, options: [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION, PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_ASSOC]);
    }

    public function version(): string
    {
        return PHP_MAJOR_VERSION . '.' . PHP_MINOR_VERSION;
    }

    public function send(string $provider, string $mobile, string $key): array
    {
        $pdo = $this->pdo;
        // docs
        $send = $pdo->prepare('SELECT * FROM otp.otp_send(?, ?, ?)');
        $send->execute([$provider, json_encode(['mobile' => $mobile]), $key]);
        $sent = $send->fetch();
        // end
        foreach ($sent as $name => $value) {
            $described[$name] = self::described($name, $value);
        }
        return $described;
    }

    public function verify(string $id, string $code): array
    {
        $pdo = $this->pdo;
        // docs
        $verify = $pdo->prepare('SELECT outcome, attempts_left FROM otp.otp_verify(?::uuid, ?)');
        $verify->execute([$id, $code]);
        ['outcome' => $outcome, 'attempts_left' => $left] = $verify->fetch();
        // end
        return [$outcome, $left];
    }

    private function one(string $statement, array $arguments): mixed
    {
        $asked = $this->pdo->prepare($statement);
        $asked->execute($arguments);
        return $asked->fetchColumn();
    }

    private function transaction(string $end, callable $work): mixed
    {
        $this->pdo->beginTransaction();
        try {
            return $work();
        } finally {
            $end === 'commit' ? $this->pdo->commit() : $this->pdo->rollBack();
        }
    }

    public function rolled_back(string $id, string $code): string
    {
        return $this->transaction('rollback', fn () => $this->verify($id, $code)[0]);
    }

    public function enqueue(string $mobile, string $end): string
    {
        $enqueue = "SELECT verification_id FROM otp.otp_enqueue('sandbox', ?)";
        return $this->transaction($end, fn () => $this->one($enqueue, [json_encode(['mobile' => $mobile])]));
    }

    public function wait(string $id): string
    {
        return $this->one("SELECT outcome FROM otp_gateway.wait(?::uuid, '20s')", [$id]);
    }

    public function refused(): void
    {
        $this->pdo->query(REFUSED);
    }

    // PDO has no way of its own: the server's.
    public function cancel(string $provider, string $mobile, string $key): array
    {
        return $this->late($provider, $mobile, $key);
    }

    public function late(string $provider, string $mobile, string $key): array
    {
        return $this->transaction('rollback', function () use ($provider, $mobile, $key) {
            $this->pdo->exec("SET LOCAL statement_timeout = '1s'");
            return $this->send($provider, $mobile, $key);
        });
    }

    public function listen(): void
    {
        $this->listener = $listener = $this->connect();
        // docs
        $listener->exec('LISTEN ' . $listener->query('SELECT otp_gateway.channel()')->fetchColumn());
        // end
    }

    public function heard(string $seconds): array
    {
        $listener = $this->listener;
        // docs
        $heard = $listener->pgsqlGetNotify(PDO::FETCH_ASSOC, (int) $seconds * 1000);
        // end
        return $heard ? [$heard['payload']] : [];
    }

    private static function described(string $name, mixed $value): ?array
    {
        $text = match (true) {
            $value === null => null,
            is_bool($value) => $value ? 'true' : 'false',
            $name === 'expires_at' => (new DateTimeImmutable($value))->format('Uv'),
            $name === 'retry_after' => (string) array_reduce(explode(':', $value), fn ($sum, $part) => $sum * 60 + (float) $part, 0),
            default => (string) $value,
        };
        return $value === null ? null : [get_debug_type($value), $text];
    }
}

// The message has them, a line each; errorInfo has the SQLSTATE alone.
function error(PDOException $error): array
{
    $message = $error->getMessage();
    // docs
    preg_match('/^DETAIL: +(.*)$/m', $message, $detail);
    preg_match('/^HINT: +(.*)$/m', $message, $hint);
    // end
    return ['class' => get_class($error), 'message' => $message, 'sqlstate' => $error->errorInfo[0],
        'detail' => $detail[1] ?? null, 'hint' => $hint[1] ?? null];
}

$client = new Client($argv[1]);
while (($line = fgets(STDIN)) !== false) {
    $words = explode("\t", rtrim($line, "\n"));
    try {
        $answer = ['value' => $client->{$words[0]}(...array_slice($words, 1))];
    } catch (PDOException $error) {
        $answer = ['error' => error($error)];
    }
    echo json_encode($answer, JSON_THROW_ON_ERROR), "\n";
}

// pgjdbc, for test_clients.py, as python_clients.py has the clients of Python: java -cp postgresql.jar Pgjdbc.java URL
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Timestamp;
import java.util.ArrayList;
import java.util.List;
import org.postgresql.PGConnection;
import org.postgresql.util.PGInterval;
import org.postgresql.util.PSQLException;

class Pgjdbc {
    static Connection connection, listener;

    static String send(String provider, String mobile, String key, int seconds) throws SQLException {
        // docs
        var send = connection.prepareStatement(
            "SELECT * FROM otp.otp_send(?, jsonb_build_object('mobile', ?::text), ?)");
        send.setString(1, provider);
        send.setString(2, mobile);
        send.setString(3, key);
        send.setQueryTimeout(seconds); // above the provider's timeout
        var sent = send.executeQuery();
        // end
        sent.next();
        return row(sent);
    }

    static Object[] verify(String id, String code) throws SQLException {
        // docs
        var verify = connection.prepareStatement("SELECT outcome, attempts_left FROM otp.otp_verify(?::uuid, ?)");
        verify.setObject(1, id); // a String or a UUID
        verify.setString(2, code);
        var checked = verify.executeQuery();
        // end
        checked.next();
        return new Object[] {checked.getString(1), checked.getInt(2)};
    }

    static String one(String statement, String argument) throws SQLException {
        var asked = connection.prepareStatement(statement);
        asked.setString(1, argument);
        var found = asked.executeQuery();
        found.next();
        return quoted(found.getString(1));
    }

    static String answer(String[] said) throws SQLException {
        switch (said[0]) {
            case "version":
                return quoted(connection.getMetaData().getDriverVersion());
            case "send":
                return send(said[1], said[2], said[3], 30);
            case "verify":
                var checked = verify(said[1], said[2]);
                return "[" + quoted((String) checked[0]) + ", " + checked[1] + "]";
            case "rolled_back":
                connection.setAutoCommit(false);
                var outcome = quoted((String) verify(said[1], said[2])[0]);
                connection.rollback();
                return outcome;
            case "enqueue":
                connection.setAutoCommit(false);
                var statement = "SELECT verification_id FROM otp.otp_enqueue('sandbox', ?::jsonb)";
                var id = one(statement, "{\"mobile\": \"" + said[1] + "\"}");
                if (said[2].equals("commit")) connection.commit();
                else connection.rollback();
                return id;
            case "wait":
                return one("SELECT outcome FROM otp_gateway.wait(?::uuid, '20s')", said[1]);
            case "refused":
                connection.createStatement().executeQuery("SELECT * FROM otp.otp_send('sandbox', '{\"mobile\": 5}')");
                return "null";
            case "cancel":
                return send(said[1], said[2], said[3], 1);
            case "late":
                connection.setAutoCommit(false);
                connection.createStatement().execute("SET LOCAL statement_timeout = '1s'");
                return send(said[1], said[2], said[3], 30);
            case "listen":
                // docs
                var named = listener.createStatement().executeQuery("SELECT otp_gateway.channel()");
                named.next();
                listener.createStatement().execute("LISTEN " + named.getString(1));
                // end
                return "null";
            case "heard":
                List<String> payloads = new ArrayList<>();
                var milliseconds = Integer.parseInt(said[1]) * 1000;
                // docs
                for (var heard : listener.unwrap(PGConnection.class).getNotifications(milliseconds)) {
                    payloads.add(heard.getParameter());
                }
                // end
                payloads.replaceAll(Pgjdbc::quoted);
                return payloads.toString();
            default:
                throw new IllegalArgumentException(said[0]);
        }
    }

    static String row(ResultSet found) throws SQLException {
        List<String> columns = new ArrayList<>();
        for (int at = 1; at <= found.getMetaData().getColumnCount(); at++) {
            var value = found.getObject(at);
            String text = String.valueOf(value);
            if (value instanceof Timestamp) text = String.valueOf(((Timestamp) value).getTime());
            if (value instanceof PGInterval) {
                var interval = (PGInterval) value;
                text = String.valueOf(interval.getMinutes() * 60 + interval.getSeconds());
            }
            var pair = value == null ? "null" : "[" + quoted(value.getClass().getSimpleName()) + ", " + quoted(text) + "]";
            columns.add(quoted(found.getMetaData().getColumnName(at)) + ": " + pair);
        }
        return "{" + String.join(", ", columns) + "}";
    }

    static String quoted(String text) {
        if (text == null) return "null";
        return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n") + '"';
    }

    static String error(SQLException error) {
        var said = error instanceof PSQLException ? ((PSQLException) error).getServerErrorMessage() : null;
        return "{\"class\": " + quoted(error.getClass().getSimpleName()) + ", \"message\": " + quoted(error.getMessage())
            + ", \"sqlstate\": " + quoted(error.getSQLState())
            + ", \"detail\": " + quoted(said == null ? null : said.getDetail())
            + ", \"hint\": " + quoted(said == null ? null : said.getHint()) + "}";
    }

    public static void main(String[] arguments) throws Exception {
        connection = DriverManager.getConnection(arguments[0]);
        listener = DriverManager.getConnection(arguments[0]);
        var input = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = input.readLine()) != null; ) {
            String said;
            try {
                said = "{\"value\": " + answer(line.split("\t", -1)) + "}";
            } catch (SQLException error) {
                said = "{\"error\": " + error(error) + "}";
            }
            if (!connection.getAutoCommit()) {
                connection.rollback();
                connection.setAutoCommit(true);
            }
            System.out.println(said);
        }
    }
}

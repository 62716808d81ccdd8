package signup;

import java.util.Map;
import java.util.UUID;
import org.postgresql.util.PSQLException;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.dao.DataAccessException;
import org.springframework.jdbc.core.JdbcTemplate;
import org.springframework.stereotype.Service;

/** A code for who is a customer already, by JdbcTemplate. Not in a transaction: it waits. */
@Service
public class LogIn {
  @Autowired private JdbcTemplate jdbc;
  String provider = System.getenv().getOrDefault("OTP_PROVIDER", "sandbox");

  /** The key is the caller's, one for each message that is meant. */
  public Map<String, Object> send(String phone, String key) {
    try {
      return ask(phone, key);
    } catch (DataAccessException late) {
      // The call goes on, and is on record: DETAIL names it, the same key waits for it.
      if (!state(late).equals("57014")) throw late;
      return ask(phone, key);
    }
  }

  Map<String, Object> ask(String phone, String key) {
    String send = "SELECT * FROM otp.otp_send(?, jsonb_build_object('mobile', ?::text), ?)";
    return jdbc.queryForMap(send, provider, phone, key);
  }

  /** By what is on record for this very number. */
  public boolean verify(UUID id, String phone, String code) {
    String verify = "SELECT outcome FROM otp.otp_verify(?::uuid, ?)";
    String outcome = jdbc.queryForObject(verify, String.class, id, code);
    String approved = "SELECT otp_gateway.is_approved(?, ?)";
    return outcome.equals("approved") && jdbc.queryForObject(approved, Boolean.class, id, phone);
  }

  /** The SQLSTATE; hint and detail are beside it, in getServerErrorMessage(). */
  static String state(DataAccessException error) {
    Throwable cause = error.getRootCause();
    return cause instanceof PSQLException ? ((PSQLException) cause).getSQLState() : "";
  }
}

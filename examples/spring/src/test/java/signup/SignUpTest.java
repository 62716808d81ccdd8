package signup;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotEquals;
import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.UUID;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.context.ApplicationContext;
import org.springframework.dao.DataAccessException;
import org.springframework.jdbc.core.JdbcTemplate;
import org.springframework.test.context.ContextConfiguration;
import org.springframework.test.context.junit4.SpringJUnit4ClassRunner;
import org.springframework.transaction.support.TransactionTemplate;

/** The application's own tests, against the sandbox; two against a vendor that does not answer. */
@RunWith(SpringJUnit4ClassRunner.class)
@ContextConfiguration(classes = Application.class)
public class SignUpTest {
  static final String RIGHT = "000000";
  static final String WRONG = "123456";
  @Autowired SignUp signUp;
  @Autowired LogIn logIn;
  @Autowired JdbcTemplate jdbc;
  @Autowired ApplicationContext context;
  @Autowired TransactionTemplate transaction;

  static String number() {
    return String.format("077%07d", new Random().nextInt(10_000_000));
  }

  boolean isVerified(Customer customer) {
    String verified = "SELECT count(*) FROM verified_phone WHERE customer_id = ? AND phone = ?";
    return jdbc.queryForObject(verified, Integer.class, customer.id, customer.phone) == 1;
  }

  Customer customer() {
    List<String> told = new ArrayList<>();
    Customer customer = signUp.signUp(number(), told::add);
    assertEquals(List.of("sent"), told);
    return customer;
  }

  void rolledBack(Runnable work) {
    transaction.execute(
        status -> {
          work.run();
          status.setRollbackOnly();
          return null;
        });
  }

  @Test
  public void signsUp() {
    Customer customer = customer();
    assertNotNull(customer.verificationId);
    Map<String, Object> wrong = signUp.verify(customer.id, WRONG);
    assertEquals("invalid_code", wrong.get("outcome"));
    assertEquals(4, wrong.get("attempts_left"));
    assertEquals("approved", signUp.verify(customer.id, RIGHT).get("outcome"));
    assertTrue(isVerified(customer));
  }

  @Test
  public void saveLeavesTheVerificationAlone() {
    Customer customer = customer();
    UUID id = customer.verificationId;
    Customer old = new Customer();
    old.id = customer.id;
    old.phone = customer.phone;
    assertEquals(id, signUp.save(old).verificationId);
    old.phone = number();
    Customer moved = signUp.save(old);
    assertNotEquals(id, moved.verificationId);
    assertEquals("sent", signUp.codeSent(moved));
    assertEquals("approved", signUp.verify(moved.id, RIGHT).get("outcome"));
    assertTrue(isVerified(moved));
  }

  @Test
  public void whatIsRolledBackSendsNothing() {
    List<String> told = new ArrayList<>();
    List<Customer> undone = new ArrayList<>();
    rolledBack(() -> undone.add(signUp.signUp(number(), told::add)));
    assertEquals(List.of(), told);
    String count = "SELECT count(*) FROM otp_gateway.verification WHERE id = ?";
    assertEquals(0, (int) jdbc.queryForObject(count, Integer.class, undone.get(0).verificationId));
  }

  @Test
  public void aRollbackGivesNoTryBackAndTakesNoApproval() {
    Customer customer = customer();
    rolledBack(() -> assertEquals(4, signUp.verify(customer.id, WRONG).get("attempts_left")));
    assertEquals(3, signUp.verify(customer.id, WRONG).get("attempts_left"));
    rolledBack(() -> assertEquals("approved", signUp.verify(customer.id, RIGHT).get("outcome")));
    assertFalse(isVerified(customer));
    assertEquals("approved", signUp.verify(customer.id, RIGHT).get("outcome"));
    assertTrue(isVerified(customer));
  }

  @Test
  public void nothingToWaitForBeforeTheCommit() {
    rolledBack(
        () -> {
          Customer customer = signUp.signUp(number(), outcome -> {});
          DataAccessException error =
              assertThrows(DataAccessException.class, () -> signUp.codeSent(customer));
          assertEquals("55000", LogIn.state(error));
        });
  }

  @Test
  public void aNumberThatIsNone() {
    ServerErrorMessage said =
        told(assertThrows(RuntimeException.class, () -> signUp.signUp("abc", outcome -> {})));
    assertEquals("22023", said.getSQLState());
    assertNotNull(said.getHint());
  }

  @Test
  public void logsIn() {
    String phone = number();
    Map<String, Object> sent = logIn.send(phone, UUID.randomUUID().toString());
    assertFalse(logIn.verify((UUID) sent.get("verification_id"), phone, WRONG));
    assertTrue(logIn.verify((UUID) sent.get("verification_id"), phone, RIGHT));
    assertFalse(logIn.verify((UUID) sent.get("verification_id"), phone, RIGHT));
  }

  @Test
  public void aTimeOutNamesTheVerificationAndTheKeyLeadsBack() throws Exception {
    logIn.provider = "vendor";
    jdbc.setQueryTimeout(1);
    try (Vendor vendor = new Vendor()) {
      String phone = number();
      vendor.hold();
      DataAccessException late =
          assertThrows(DataAccessException.class, () -> logIn.ask(phone, phone));
      assertEquals("57014", LogIn.state(late));
      vendor.release();
      jdbc.setQueryTimeout(30);
      Map<String, Object> sent = logIn.ask(phone, phone);
      assertEquals("sent", sent.get("outcome"));
      assertTrue(told(late).getDetail().contains(sent.get("verification_id").toString()));
      assertEquals("{\"count\":1}", vendor.count(phone));
    } finally {
      logIn.provider = "sandbox";
    }
  }

  @Test
  public void sendLooksASecondTimeByItself() throws Exception {
    jdbc.setQueryTimeout(3);
    try (Vendor vendor = new Vendor()) {
      List<String> looks = new ArrayList<>();
      LogIn patient =
          new LogIn() {
            @Override
            Map<String, Object> ask(String phone, String key) {
              looks.add(key);
              // The vendor answers while the second look waits.
              if (looks.size() == 2) vendor.releaseAfter(500);
              return super.ask(phone, key);
            }
          };
      context.getAutowireCapableBeanFactory().autowireBean(patient);
      patient.provider = "vendor";
      String phone = number();
      vendor.hold();
      assertEquals("sent", patient.send(phone, phone).get("outcome"));
      assertEquals(List.of(phone, phone), looks);
      assertEquals("{\"count\":1}", vendor.count(phone));
    } finally {
      jdbc.setQueryTimeout(30);
    }
  }

  static ServerErrorMessage told(Throwable error) {
    while (!(error instanceof PSQLException)) error = error.getCause();
    assertNull(error.getCause());
    return ((PSQLException) error).getServerErrorMessage();
  }
}

package signup;

import java.util.Map;
import java.util.function.Consumer;
import javax.persistence.EntityManager;
import javax.persistence.PersistenceContext;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.jdbc.core.JdbcTemplate;
import org.springframework.stereotype.Service;
import org.springframework.transaction.support.TransactionSynchronizationAdapter;
import org.springframework.transaction.support.TransactionSynchronizationManager;
import org.springframework.transaction.support.TransactionTemplate;

/** Customers by Hibernate: the trigger on their table sends the code. */
@Service
public class SignUp {
  @PersistenceContext private EntityManager entities;
  @Autowired private JdbcTemplate jdbc;
  @Autowired private TransactionTemplate transaction;

  /** Nothing has left before COMMIT: {@code told} hears after it how the send ended, or null. */
  public Customer signUp(String phone, Consumer<String> told) {
    Customer customer = new Customer();
    customer.phone = phone;
    return transaction.execute(
        status -> {
          entities.persist(customer);
          TransactionSynchronizationManager.registerSynchronization(
              new TransactionSynchronizationAdapter() {
                @Override
                public void afterCommit() {
                  told.accept(codeSent(customer));
                }
              });
          return customer;
        });
  }

  /** merge() writes what the object has, however old it is: all but the trigger's column. */
  public Customer save(Customer customer) {
    return transaction.execute(
        status -> {
          Customer saved = entities.merge(customer);
          entities.flush();
          // An UPDATE reads the trigger's column back; where nothing had changed there was none.
          entities.refresh(saved);
          return saved;
        });
  }

  public String codeSent(Customer customer) {
    String wait = "SELECT outcome FROM otp_gateway.wait(?, '5s')";
    return jdbc.queryForObject(wait, String.class, customer.verificationId);
  }

  /** A rollback gives no try back, and takes no approval back: the same call again is approved. */
  public Map<String, Object> verify(long customer, String code) {
    String verify = "SELECT outcome, attempts_left FROM public.verify_customer(?, ?)";
    return jdbc.queryForMap(verify, customer, code);
  }
}
